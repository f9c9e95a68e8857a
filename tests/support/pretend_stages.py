# SPDX-License-Identifier: Apache-2.0
"""What stage containers would leave behind, for a pretended kubelet: results by stage, and failures on demand."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from typing import Any

from support.pretend_kubelet import Outcome
from thinkrec_crds import group

Body = dict[str, Any]
AUC = 0.7
GROUPS = 2
SERVING, CLEANUP = "serving", "cleanup"
"""Pods that belong to no stage."""


class PretendStages:
    """The callback of a PretendKubelet. Counts the Pods of each key; tells the metrics it is told to tell."""

    def __init__(self, *, auc: float = AUC, groups: int = GROUPS, delay_seconds: float = 0.0) -> None:
        self.auc = auc
        self.groups = groups
        self.delay_seconds = delay_seconds
        self.gain = 0.02
        """How much better than control the second variant of an experiment is, beyond doubt."""
        self.look: dict[str, float] = {}
        """What each analysis of users finds (thinkrec_crds.findings)."""
        self.failing: dict[str, list[Outcome]] = {}
        """Stage (kind) -> what its next Pods do instead of succeeding."""
        self.held: dict[str, set[str]] = {}
        """Namespace -> stages (kinds), or SERVING, or CLEANUP, that get no further until they are taken out of it."""
        self.started: Counter[str] = Counter()
        """`<namespace>/<key>` -> Pods that ran."""
        self._lock = threading.Lock()

    def __call__(self, pod: Body) -> Outcome:
        """Return what becomes of a Pod."""
        labels = pod["metadata"].get("labels", {})
        kind, key = labels.get(group.LABEL_STAGE), labels.get(group.LABEL_STAGE_KEY)
        namespace = pod["metadata"]["namespace"]
        if kind is None:
            is_job = any(owner["kind"] == "Job" for owner in pod["metadata"].get("ownerReferences", []))
            part = CLEANUP if is_job else SERVING
            return Outcome(exit_code=0 if is_job else None, held=lambda: part in self.held.get(namespace, ()))
        with self._lock:
            self.started[f"{namespace}/{key}"] += 1
            if self.failing.get(kind):
                return self.failing[kind].pop(0)
        return Outcome(
            message=json.dumps(self.published(kind, key)),
            delay_seconds=self.delay_seconds,
            held=lambda: kind in self.held.get(namespace, ()),
        )

    def published(self, kind: str, key: str) -> Body:
        """Return the termination message of a stage that succeeded."""
        metrics = dict.fromkeys(("auc", "uauc", "ndcg@5", "map@5"), self.auc) if kind == "evaluate" else {}
        metrics |= self._compared() if kind == "compare" else {}
        metrics |= self.look if kind == "analyse" else {}
        return {
            "kind": kind,
            "key": key,
            "digest": f"sha256:{hashlib.sha256(key.encode()).hexdigest()}",
            "uri": f"s3://models/movies/{kind}/{key}",
            "metrics": metrics,
            "counts": {"groups": self.groups} if kind == "gate" else {},
        }

    def _compared(self) -> dict[str, float]:
        gain = self.gain
        effect = {"": gain, "/lower": gain - 0.01, "/upper": gain + 0.01, "/p": 0.001}
        numbers = {f"1/uauc/effect{name}": value for name, value in effect.items()}
        return {"0/uauc": self.auc, "1/uauc": self.auc + gain, **numbers}


def failed(exit_code: int, error: str = "", reason: str = "", *, kind: str = "dataset", key: str = "") -> Outcome:
    """Return the end of a stage that failed with a sentence of its own."""
    message = json.dumps({"kind": kind, "key": key or "0" * 40, "error": error}) if error else ""
    return Outcome(exit_code=exit_code, message=message, reason=reason)
