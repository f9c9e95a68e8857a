# SPDX-License-Identifier: Apache-2.0
"""Items of a LIST, read only as far as somebody looks.

A start lists everything there is, and nearly all of it needs no more than its name and version; the rest is packed as
it came. Turning every item into dictionaries first took more time than everything else a start does.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec
from msgspec import Raw, Struct
from pydantic_core import from_json

from thinkrec_crds.conditions import ConditionType

_NOTHING = Raw(b"")
RECONCILING: Final = ConditionType.RECONCILING.value


class OwnerReference(Struct, omit_defaults=True):
    """One owner, whole, for it is compared with what we want."""

    apiVersion: str = ""  # noqa: N815 (the apiserver's name)
    kind: str = ""
    name: str = ""
    uid: str = ""
    controller: bool = False
    blockOwnerDeletion: bool = False  # noqa: N815


class Metadata(Struct, omit_defaults=True):
    """What is kept of an object's metadata: managedFields, often its largest part, is left out."""

    name: str
    namespace: str
    uid: str
    resourceVersion: str  # noqa: N815
    generation: int = 0
    creationTimestamp: str | None = None  # noqa: N815
    deletionTimestamp: str | None = None  # noqa: N815
    deletionGracePeriodSeconds: int | None = None  # noqa: N815
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    finalizers: list[str] = []
    ownerReferences: list[OwnerReference] = []  # noqa: N815


class Listed(Struct, omit_defaults=True):
    """One item; every other part stays the bytes that came."""

    metadata: Metadata
    spec: Raw = _NOTHING
    status: Raw = _NOTHING
    data: Raw = _NOTHING
    revision: Raw = _NOTHING

    def to_json(self) -> bytes:
        """Return the object as JSON, without managedFields."""
        return msgspec.json.encode(self)

    def storage_uri(self) -> str:
        """Return `spec.artifacts.storageUri` of a model, or nothing where it has none that is a text."""
        try:
            spec = _MODEL_SPECS.decode(self.spec)
        except msgspec.DecodeError:
            return ""
        return spec.artifacts.storageUri if spec.artifacts else ""

    def is_settled(self) -> bool:
        """Return whether a model's status says that this generation is dealt with, for better or for worse."""
        try:
            status = _MODEL_STATUSES.decode(self.status)
        except msgspec.DecodeError:
            return False
        working = any(item.type == RECONCILING and item.status == "True" for item in status.conditions)
        return status.observedGeneration == self.metadata.generation and not working

    def body(self) -> dict[str, Any]:
        """Return the object as a dictionary."""
        found: dict[str, Any] = from_json(self.to_json())
        return found


class _Artifacts(Struct):
    storageUri: str = ""  # noqa: N815


class _ModelSpec(Struct):
    artifacts: _Artifacts | None = None


class _Condition(Struct):
    type: str
    status: str


class _ModelStatus(Struct):
    observedGeneration: int | None = None  # noqa: N815
    conditions: list[_Condition] = []


class ListMeta(Struct):
    """Where a list stands, and where it goes on."""

    resourceVersion: str = ""  # noqa: N815
    continue_: str = msgspec.field(name="continue", default="")


class Answer(Struct):
    """A page of a list."""

    metadata: ListMeta
    items: list[Raw] | None = None


_ANSWERS = msgspec.json.Decoder(Answer)
_MODEL_STATUSES = msgspec.json.Decoder(_ModelStatus)
_MODEL_SPECS = msgspec.json.Decoder(_ModelSpec)
_ITEMS = msgspec.json.Decoder(Listed)


def read_answer(raw: bytes) -> Answer:
    """Return a page with its items still as bytes; raise ValueError where it is none."""
    try:
        return _ANSWERS.decode(raw)
    except msgspec.DecodeError as error:
        raise ValueError(f"no list of Kubernetes: {error}") from error


def read_item(raw: Raw) -> Listed:
    """Return one item; raise ValueError where it is no object of Kubernetes."""
    try:
        return _ITEMS.decode(raw)
    except msgspec.DecodeError as error:
        raise ValueError(f"no object of Kubernetes: {error}") from error
