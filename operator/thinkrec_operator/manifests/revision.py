# SPDX-License-Identifier: Apache-2.0
"""A revision as a ControllerRevision: lineage in its immutable `data`, the newest evaluation in an annotation. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from thinkrec_crds import group
from thinkrec_operator.manifests import common
from thinkrec_operator.manifests.common import Manifest
from thinkrec_operator.observed import EvaluationRecord, RevisionData, RevisionRecord
from thinkrec_operator.plan import ControllerRevisionChild

ANNOTATION_EVALUATION = f"{group.GROUP}/evaluation"
"""JSON of the newest evaluation; `data` of a ControllerRevision cannot change, an annotation can."""


def controller_revision(child: ControllerRevisionChild, *, written: Mapping[str, Any] | None = None) -> Manifest:
    """Return the ControllerRevision of a trained revision, with the `data` that is `written` already, where it is.

    The data cannot change, whatever this version would add to it.
    """
    record = child.record
    return {
        "apiVersion": "apps/v1",
        "kind": "ControllerRevision",
        "metadata": common.metadata(
            child.owner,
            record.name,
            "revision",
            extra={group.LABEL_REVISION: record.name},
            annotations={ANNOTATION_EVALUATION: record.evaluation.to_json()},
        ),
        "revision": record.number,
        "data": written if written is not None else _data(child),
    }


def _data(child: ControllerRevisionChild) -> Mapping[str, Any]:
    found: Mapping[str, Any] = _sorted(child.record.data.model_dump(mode="json", by_alias=True, exclude_none=True))
    return found


def _sorted(value: Any) -> Any:
    """Return it with members in the apiserver's order: written as it will be read, it is not written a second time."""
    if isinstance(value, Mapping):
        return {name: _sorted(value[name]) for name in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, list) else value


def record_of(body: Mapping[str, Any]) -> RevisionRecord:
    """Return the record a ControllerRevision holds; raise pydantic.ValidationError where it is not one of ours."""
    meta = body["metadata"]
    return RevisionRecord(
        name=meta["name"],
        number=int(body["revision"]),
        data=RevisionData.model_validate(body["data"]),
        evaluation=EvaluationRecord.from_json(meta["annotations"][ANNOTATION_EVALUATION]),
    )
