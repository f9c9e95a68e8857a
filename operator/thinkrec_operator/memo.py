# SPDX-License-Identifier: Apache-2.0
"""Remembers what follows from values alone, so that a steady model costs no work twice. Pure, seen from outside.

Keys are values, never identities: a spec stands for itself by a digest of its content, so two equal specs share one
memory and an edited one has none. When a memory is full it is forgotten as a whole, which only costs time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from thinkrec_crds.model import ModelSpec

_T = TypeVar("_T")


class Memo(Generic[_T]):
    """Values by key, at most `size` of them."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._known: dict[Hashable, _T] = {}

    def get(self, key: Hashable, make: Callable[[], _T]) -> _T:
        """Return the value of that key; make it where it is not known."""
        found = self._known.get(key)
        if found is None:
            found = make()
            if len(self._known) >= self._size:
                self._known.clear()
            self._known[key] = found
        return found


_digests: Memo[tuple[ModelSpec, bytes]] = Memo(256)
"""By identity, only within moments; each entry holds its spec, so that no other one can get the same identity."""


def spec_digest(spec: ModelSpec) -> bytes:
    """Return 16 bytes that stand for everything a spec says."""

    def make() -> tuple[ModelSpec, bytes]:
        return spec, hashlib.blake2b(spec.model_dump_json().encode(), digest_size=16).digest()

    return _digests.get(id(spec), make)[1]
