# SPDX-License-Identifier: Apache-2.0
"""The names other systems see: API group, kinds, labels, annotations, finalizer. Nothing else spells them out."""

from __future__ import annotations

from typing import Final

GROUP: Final = "thinkrec.io"
VERSION: Final = "v1alpha1"
API_VERSION: Final = "thinkrec.io/v1alpha1"
CATEGORY: Final = "thinkrec"

MODEL_KIND: Final = "ThinkRecModel"
MODEL_PLURAL: Final = "thinkrecmodels"
MODEL_SINGULAR: Final = "thinkrecmodel"
MODEL_SHORT_NAMES: Final = ("trm",)

EXPERIMENT_KIND: Final = "ThinkRecExperiment"
EXPERIMENT_PLURAL: Final = "thinkrecexperiments"
EXPERIMENT_SINGULAR: Final = "thinkrecexperiment"
EXPERIMENT_SHORT_NAMES: Final = ("tre",)

MODEL_CRD_NAME: Final = f"{MODEL_PLURAL}.{GROUP}"
EXPERIMENT_CRD_NAME: Final = f"{EXPERIMENT_PLURAL}.{GROUP}"

FIELD_MANAGER: Final = "thinkrec"
"""Server-side apply field manager of everything the operator writes."""

PART_OF: Final = "thinkrec"
MANAGED_BY: Final = "thinkrec-operator"

# Recommended labels of Kubernetes itself, set on every child.
LABEL_NAME: Final = "app.kubernetes.io/name"
LABEL_INSTANCE: Final = "app.kubernetes.io/instance"
LABEL_VERSION: Final = "app.kubernetes.io/version"
LABEL_COMPONENT: Final = "app.kubernetes.io/component"
LABEL_PART_OF: Final = "app.kubernetes.io/part-of"
LABEL_MANAGED_BY: Final = "app.kubernetes.io/managed-by"

# Our own labels: what a child belongs to. Values are at most 63 characters; longer names are hashed by the writer.
LABEL_MODEL: Final = f"{GROUP}/model"
LABEL_STAGE: Final = f"{GROUP}/stage"
LABEL_STAGE_KEY: Final = f"{GROUP}/stage-key"
LABEL_EXPERT: Final = f"{GROUP}/expert"
LABEL_REVISION: Final = f"{GROUP}/revision"
LABEL_EXPERIMENT: Final = f"{GROUP}/experiment"
LABEL_VARIANT: Final = f"{GROUP}/variant"

LABEL_KUEUE_QUEUE: Final = "kueue.x-k8s.io/queue-name"
"""Set on training children when `spec.training.queueName` is given; Kueue then decides when they start."""

ANNOTATION_RETRAIN_REQUESTED: Final = f"{GROUP}/retrainRequestedAt"
"""A new value asks for one training run although nothing in spec changed; echoed in `status.lastHandledRetrainAt`."""

ANNOTATION_SCHEDULED_FOR: Final = f"{GROUP}/scheduledFor"
"""On a Job: the newest scheduled run that was started when it was created, as a retrain token."""

ANNOTATION_RECONCILE_REQUESTED: Final = f"{GROUP}/reconcileRequestedAt"
"""A new value asks for one reconciliation now; echoed in `status.lastHandledReconcileAt`."""

ANNOTATION_SPEC_HASH: Final = f"{GROUP}/spec-hash"
"""Digest of the desired state a child was written from, so that drift is found without comparing defaults."""

FINALIZER: Final = f"{GROUP}/artifact-cleanup"
"""Present only while `spec.artifacts.deletionPolicy` is Delete."""

SCHEMA_ONLY_STATUS_GENERATION: Final = -1
"""`status.observedGeneration` before the operator has seen the object (default in the schema, for kstatus)."""
