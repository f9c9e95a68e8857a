# SPDX-License-Identifier: Apache-2.0
"""What the apiserver may answer instead of doing what was asked."""

from __future__ import annotations

import json
from collections.abc import Mapping


class ApiError(Exception):
    """A call was refused, or could not be made (`status` 0)."""

    def __init__(
        self,
        status: int,
        reason: str,
        message: str,
        *,
        retry_after: float | None = None,
        namespace_terminating: bool = False,
    ) -> None:
        """Keep the HTTP status, the apiserver's own reason and sentence, and when it wants to be asked again."""
        super().__init__(f"{reason or status}: {message}")
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after = retry_after
        self.namespace_terminating = namespace_terminating

    @property
    def not_found(self) -> bool:
        """Return whether the object, or the kind, is not there."""
        return self.status == 404

    @property
    def conflict(self) -> bool:
        """Return whether somebody else was faster: the decision was made on an old view."""
        return self.status == 409

    @property
    def refused(self) -> bool:
        """Return whether the same call will be refused again until the user or an administrator changes something.

        400 and 422: the object cannot be. 403: not allowed (RBAC, quota, admission policy, Pod Security). 404 on a
        kind or a namespace is waited for instead.
        """
        return self.status in (400, 403, 405, 422)


def from_response(status: int, headers: Mapping[str, str], body: bytes) -> ApiError:
    """Return the error that a response with this status and body is."""
    reason, message, terminating = "", body[:500].decode(errors="replace"), False
    try:
        told = json.loads(body)
    except ValueError:
        told = None
    if isinstance(told, dict):
        reason, message = str(told.get("reason") or ""), str(told.get("message") or message)
        causes = (told.get("details") or {}).get("causes") or ()
        terminating = any(cause.get("reason") == "NamespaceTerminating" for cause in causes)
    after = _seconds(headers.get("Retry-After"))
    return ApiError(status, reason, message, retry_after=after, namespace_terminating=terminating)


def _seconds(text: str | None) -> float | None:
    try:
        return float(text) if text is not None else None
    except ValueError:
        return None  # a date: its clock may differ from ours, so the queue's own back-off is used
