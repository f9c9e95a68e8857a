# SPDX-License-Identifier: Apache-2.0
"""Children of a plan as Kubernetes objects: pure functions from frozen values to dictionaries.

    render        one child -> one object, by the modules below
    quantities    resource quantities ("500m", "8Gi") as numbers
    common        metadata, labels, owner references, pod security
    pods          the pod of a stage
    training      stage ConfigMap and Job or JobSet;  train_job: Kubeflow's
    cleanup       the Job that removes a deleted model's artifacts
    serving       Deployment and Service;  scaling: their autoscaler and disruption budget
    event_log     what a serving pod needs for experiments: the traffic table, and who ships its events
    revision      ControllerRevision, to and from a RevisionRecord

No names are chosen here (names.py) and nothing is decided here (reconcile.py).
"""

from __future__ import annotations

from thinkrec_operator.manifests.render import render

__all__ = ["render"]
