# SPDX-License-Identifier: Apache-2.0
"""Objects as they are kept in memory: a few plain fields, and the body packed small until somebody needs it.

With ten thousand models the parsed bodies would take gigabytes; a packed one takes one to two kilobytes.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from sys import intern
from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json, to_json

from thinkrec_crds import group
from thinkrec_crds.model import ThinkRecModel
from thinkrec_operator.cluster.jobs import owner_uid
from thinkrec_operator.manifests.revision import record_of
from thinkrec_operator.observed import RevisionRecord

_PARSED = 512
"""Bodies kept parsed: those that are worked on again and again."""


@dataclass(frozen=True, slots=True)
class ObjectRecord:
    """Any object, packed."""

    kind: str
    name: str
    uid: str
    version: int
    owner: str
    """uid of the controlling owner."""
    component: str
    deleting: bool
    packed: bytes
    store: str = ""
    """Of a model: the root of its store."""

    @property
    def body(self) -> dict[str, Any]:
        """Return the object without what only the apiserver needs (managedFields)."""
        found: dict[str, Any] = from_json(zlib.decompress(self.packed))
        return found


def object_record(kind: str, body: Mapping[str, Any], *, component: str = "") -> ObjectRecord:
    """Return the record of any object; lists leave the kind out of their items, so it is given."""
    meta = body["metadata"]
    kept = {**body, "metadata": {name: value for name, value in meta.items() if name != "managedFields"}}
    return ObjectRecord(
        kind=kind,
        name=meta["name"],
        uid=meta["uid"],
        version=int(meta["resourceVersion"]),
        owner=owner_uid(meta),
        component=component,
        deleting=meta.get("deletionTimestamp") is not None,
        store=_store(body) if kind == group.MODEL_KIND else "",
        packed=zlib.compress(to_json(kept), 1),
    )


def _store(body: Mapping[str, Any]) -> str:
    root = ((body.get("spec") or {}).get("artifacts") or {}).get("storageUri") or ""
    return intern(str(root).rstrip("/"))


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A model that this version of the operator cannot understand, and why."""

    namespace: str
    name: str
    uid: str
    generation: int
    message: str


@lru_cache(maxsize=_PARSED)
def parsed_model(record: ObjectRecord) -> ThinkRecModel | Unreadable:
    """Return a model's body as a value, or what is wrong with it where the schema that admitted it was another one."""
    body = record.body
    try:
        return ThinkRecModel.model_validate(body)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        meta = body["metadata"]
        message = f"`{where}`: {first['msg']}; the CRD in the cluster and this operator differ in version"
        return Unreadable(meta["namespace"], record.name, record.uid, meta.get("generation", 0), message)


@lru_cache(maxsize=_PARSED)
def parsed_revision(record: ObjectRecord) -> RevisionRecord | None:
    """Return the lineage a ControllerRevision holds, or None where it holds none that can be read."""
    try:
        return record_of(record.body)
    except (ValidationError, KeyError):
        return None  # written by hand or by a newer version: what cannot be read cannot be served from
