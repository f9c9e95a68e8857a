# SPDX-License-Identifier: Apache-2.0
"""Objects as they are kept in memory: a few plain fields, and the body packed small until somebody needs it.

With ten thousand models the parsed bodies would take gigabytes; a packed one takes one to three kilobytes.
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
from thinkrec_crds.experiment import ThinkRecExperiment
from thinkrec_crds.model import ThinkRecModel
from thinkrec_operator.cluster import resources
from thinkrec_operator.cluster.jobs import owner_uid
from thinkrec_operator.cluster.listed import RECONCILING, Listed
from thinkrec_operator.manifests.revision import record_of
from thinkrec_operator.observed import RevisionRecord

_PARSED = 512
"""Bodies kept parsed: those that are worked on again and again."""
TRAFFIC = "traffic"
"""Component label of the one ConfigMap of a model that is written anew."""
_WINDOW = 32_768
"""How far back zlib looks."""
Seen = Mapping[str, Any] | Listed
"""An object as it came: parsed out of a watch or an answer, or an item of a list."""


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
    """Empty for a ConfigMap whose name is the digest of its content: nobody looks into it."""
    store: str = ""
    """Of a model: the root of its store."""
    settled: bool = False
    """Of a model: whether its status says that its spec is dealt with, for better or for worse."""

    @property
    def text(self) -> bytes:
        """Return the object as JSON, without what only the apiserver needs (managedFields)."""
        return _unpack(self.kind, self.packed)

    @property
    def body(self) -> Mapping[str, Any]:
        """Return the same as a dictionary, which is shared: one visit looks at it several times."""
        return _unpacked(self)


_FIRST: dict[str, bytes] = {}
"""The first object of each kind: others are packed as what differs from it, which halves them."""


def _pack(kind: str, text: bytes) -> bytes:
    packer = zlib.compressobj(1, zdict=_FIRST.setdefault(kind, text[:_WINDOW]))
    return packer.compress(text) + packer.flush()


def _unpack(kind: str, packed: bytes) -> bytes:
    return zlib.decompressobj(zdict=_FIRST.get(kind, b"")).decompress(packed)


@lru_cache(maxsize=64)
def _unpacked(record: ObjectRecord) -> Mapping[str, Any]:
    found: dict[str, Any] = from_json(record.text)
    return found


@dataclass(frozen=True, slots=True)
class Header:
    """What says which object it is, and in which version."""

    namespace: str
    name: str
    uid: str
    version: int
    labels: Mapping[str, str]


def header(seen: Seen) -> Header:
    """Return the header of an object; raise KeyError, TypeError or ValueError where it has none."""
    if isinstance(seen, Listed):
        meta = seen.metadata
        return Header(meta.namespace, meta.name, meta.uid, int(meta.resourceVersion), meta.labels)
    found = seen["metadata"]
    labels = found.get("labels") or {}
    return Header(found["namespace"], found["name"], found["uid"], int(found["resourceVersion"]), labels)


def plain(seen: Seen) -> Mapping[str, Any]:
    """Return the object as a dictionary."""
    return seen.body() if isinstance(seen, Listed) else seen


def object_record(kind: str, seen: Seen) -> ObjectRecord:
    """Return the record of any object; lists leave the kind out of their items, so it is given."""
    head = header(seen)
    if isinstance(seen, Listed):
        owner = next((ref.uid for ref in seen.metadata.ownerReferences if ref.controller), "")
        deleting, text = seen.metadata.deletionTimestamp is not None, seen.to_json()
    else:
        meta = seen["metadata"]
        owner, deleting = owner_uid(meta), meta.get("deletionTimestamp") is not None
        kept = {**seen, "metadata": {name: value for name, value in meta.items() if name != "managedFields"}}
        text = to_json(kept)
    component = intern(head.labels.get(group.LABEL_COMPONENT, ""))
    return ObjectRecord(
        kind=kind,
        name=head.name,
        uid=head.uid,
        version=head.version,
        owner=owner,
        component=component,
        deleting=deleting,
        store=_store(seen) if kind == group.MODEL_KIND else "",
        settled=kind == group.MODEL_KIND and not deleting and _is_settled(seen),
        packed=b"" if kind == resources.CONFIG_MAP.kind and component != TRAFFIC else _pack(kind, text),
    )


def _is_settled(seen: Seen) -> bool:
    if isinstance(seen, Listed):
        return seen.is_settled()
    status = seen.get("status") or {}
    conditions = status.get("conditions") or ()
    reconciling = any(item["type"] == RECONCILING and item["status"] == "True" for item in conditions)
    return status.get("observedGeneration") == seen["metadata"].get("generation", 0) and not reconciling


def _store(seen: Seen) -> str:
    """Return the root of a model's store."""
    if isinstance(seen, Listed):
        return intern(seen.storage_uri().rstrip("/"))
    root = ((seen.get("spec") or {}).get("artifacts") or {}).get("storageUri") or ""
    return intern(str(root).rstrip("/"))


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A model that this version of the operator cannot understand, and why."""

    namespace: str
    name: str
    uid: str
    generation: int
    message: str
    kind: str = group.MODEL_KIND


@lru_cache(maxsize=_PARSED)
def parsed_model(record: ObjectRecord) -> ThinkRecModel | Unreadable:
    """Return a model's body as a value, or what is wrong with it where the schema that admitted it was another one."""
    try:
        return ThinkRecModel.model_validate_json(record.text)
    except ValidationError as error:
        return _unreadable(record, error)


@lru_cache(maxsize=_PARSED)
def parsed_experiment(record: ObjectRecord) -> ThinkRecExperiment | Unreadable:
    """Return an experiment's body as a value, or what is wrong with it."""
    try:
        return ThinkRecExperiment.model_validate_json(record.text)
    except ValidationError as error:
        return _unreadable(record, error)


def _unreadable(record: ObjectRecord, error: ValidationError) -> Unreadable:
    first = error.errors(include_url=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    meta = record.body["metadata"]
    message = f"`{where}`: {first['msg']}; the CRD in the cluster and this operator differ in version"
    return Unreadable(meta["namespace"], record.name, record.uid, meta.get("generation", 0), message, record.kind)


@lru_cache(maxsize=_PARSED)
def parsed_revision(record: ObjectRecord) -> RevisionRecord | None:
    """Return the lineage a ControllerRevision holds, or None where it holds none that can be read."""
    try:
        return record_of(record.body)
    except (ValidationError, KeyError):
        return None  # written by hand or by a newer version: what cannot be read cannot be served from
