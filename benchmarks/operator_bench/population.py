# SPDX-License-Identifier: Apache-2.0
"""Thousands of models, written by the benchmark: those that were trained, and those that have just been applied."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from embedded_cluster.cluster import Cluster
from operator_bench.bulk import MERGE, Request, send
from operator_bench.copies import Database, copies, of_model
from support.models import model_manifest, models_path
from thinkrec_crds.group import ANNOTATION_SPEC_HASH
from thinkrec_crds.model import ThinkRecModel
from thinkrec_operator.cluster.drift import ANNOTATION_APPLIED, stamped
from thinkrec_operator.cluster.resources import BY_KIND, DEPLOYMENT, SERVICE
from thinkrec_operator.manifests import render
from thinkrec_operator.manifests.revision import record_of
from thinkrec_operator.names import revision_name
from thinkrec_operator.observed import Observed
from thinkrec_operator.reconcile import reconcile

Body = dict[str, Any]
EXPERTS = {"count": 2}
NAMESPACE = "bench"


@dataclass(frozen=True, slots=True)
class Template:
    """What one training leaves behind. Keys of stages do not depend on names, so others can be made of it."""

    model: Body
    revision: Body

    def status_of(self, name: str) -> Body:
        """Return the status of a model of that name which is trained and serves."""
        old = self.model["metadata"]["name"]
        text = json.dumps(self.model["status"]).replace(f"{old}-", f"{name}-").replace(f"//{old}.", f"//{name}.")
        text = text.replace(f".{self.model['metadata']['namespace']}.svc", f".{NAMESPACE}.svc")
        status: Body = json.loads(text.replace(f"thinkrec.io/model={old}", f"thinkrec.io/model={name}"))
        return status

    def children_of(self, model: Body) -> list[Body]:
        """Return the children that the operator would write for a trained model of that name: it decides them here."""
        found = ThinkRecModel.model_validate({**model, "status": self.status_of(model["metadata"]["name"])})
        record = record_of(self.revision)
        record = replace(record, name=revision_name(found.metadata.name, record.bundle.key))
        observed = Observed(model=found, now=datetime.now(UTC), revisions=(record,))
        return [stamped(render(child)) for child in reconcile(observed).children]


def apply_models(cluster: Cluster, namespace: str, names: list[str]) -> list[Body]:
    """Create models of these names."""
    path = models_path(namespace)
    return send(cluster, [Request("POST", path, model_manifest(name, experts=EXPERTS)) for name in names])


def served_models(cluster: Cluster, count: int, template: Template) -> None:
    """Create models that were trained and are served, and all that belongs to them: one by the API, others of it."""
    original = _served_model(cluster, template)
    database = Database(cluster)
    stored = of_model(database, NAMESPACE, _name(0), _address(0))
    cluster.stop_apiserver()
    database.put(copies(stored, _changes(original, count, template)))
    cluster.start_apiserver()


def _name(number: int) -> str:
    return f"model-{number:05}"


def _address(number: int) -> str:
    """Return a Service address that is a model's own; all have the same length."""
    return f"10.96.{100 + number // 90}.{10 + number % 90}"


def _at_address(body: Body) -> Body:
    if body["kind"] != SERVICE.kind:
        return body
    return {**body, "spec": {**body["spec"], "clusterIP": _address(0)}}


def _served_model(cluster: Cluster, template: Template) -> list[Body]:
    """Create one; return the model and its children."""
    (model,) = apply_models(cluster, NAMESPACE, [_name(0)])
    path = f"{models_path(NAMESPACE)}/{_name(0)}/status"
    send(cluster, [Request("PATCH", path, {"status": template.status_of(_name(0))}, MERGE)])
    children = [_at_address(body) for body in template.children_of(model)]
    made = send(cluster, [Request("POST", BY_KIND[body["kind"]].path(NAMESPACE), body) for body in children])
    send(cluster, [_ready(body) for body in made if body["kind"] == DEPLOYMENT.kind])
    return [model, *made]


def _changes(original: list[Body], count: int, template: Template) -> Iterator[dict[bytes, bytes]]:
    """Yield what makes a copy another model: its name, every uid, and the digests that the operator would write."""
    first = original[0]
    before = _digests(template.children_of(first))
    for number in range(1, count):
        uids = {body["metadata"]["uid"]: str(uuid.uuid4()) for body in original}
        meta = {**first["metadata"], "name": _name(number), "uid": uids[first["metadata"]["uid"]]}
        digests = dict(zip(before, _digests(template.children_of({**first, "metadata": meta})), strict=True))
        change = {_name(0): _name(number), _address(0): _address(number), **uids, **digests}
        yield {old.encode(): new.encode() for old, new in change.items()}


def _digests(children: list[Body]) -> list[str]:
    """Return the digests in the annotations of children, in a fixed order."""
    names = (ANNOTATION_APPLIED, ANNOTATION_SPEC_HASH)
    annotations = [body["metadata"]["annotations"] for body in children]
    return [found[name] for found in annotations for name in names if name in found]


def _ready(body: Body) -> Request:
    """Return the status that the Deployment controller writes once all Pods are ready."""
    names = ("replicas", "updatedReplicas", "readyReplicas", "availableReplicas")
    counts = dict.fromkeys(names, body["spec"]["replicas"])
    status = {**counts, "observedGeneration": body["metadata"]["generation"]}
    return Request("PATCH", DEPLOYMENT.path(NAMESPACE, body["metadata"]["name"], "status"), {"status": status}, MERGE)
