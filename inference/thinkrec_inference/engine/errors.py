# SPDX-License-Identifier: Apache-2.0
"""What can be wrong, by who has to act: the owner of the base model, of the bundle, or the caller."""

from __future__ import annotations

from thinkrec_crds.engine_api import EngineError


class BaseModelError(ValueError):
    """The base model folder cannot be used; the message names the file or token and the remedy."""


class BundleError(ValueError):
    """The bundle folder cannot be served; the message names the file or digest and the remedy."""


class RequestRefusedError(ValueError):
    """A request the engine does not answer; `error` is what the caller gets."""

    def __init__(self, status: int, message: str, remedy: str = "") -> None:
        super().__init__(f"{message} {remedy}".strip())
        self.error = EngineError(status=status, error=message, remedy=remedy)
