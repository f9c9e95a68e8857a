# SPDX-License-Identifier: Apache-2.0
"""Which events were stored before: the newest ids, in bounded memory.

Two generations of dictionaries: when the younger one is full it becomes the older one, and what that held is forgotten.
So at least the newest half of the limit is known, and an id and its content take two whole numbers: about 125 bytes.
An event that is sent again after it was forgotten is stored again, and whoever reads the store removes it by its id.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

REMEMBERED = 1_000_000
"""At most 125 MB, and at least 500 000 events."""


def fingerprint(data: bytes) -> int:
    """Return 64 bits of BLAKE2b.

    Two ids that share them would give a false conflict (409), never a loss, since contents are compared too: with a
    million ids known, the chance that a new one meets any of them is 1 in 10^13.
    """
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big")


class KnownIds:
    """Fingerprint of an id -> fingerprint of the content. Not thread-safe."""

    def __init__(self, limit: int = REMEMBERED) -> None:
        self.limit = limit
        self._young: dict[int, int] = {}
        self._old: dict[int, int] = {}

    def get(self, event: int) -> int | None:
        """Return the content's fingerprint, or None when the id is unknown or forgotten."""
        found = self._young.get(event)
        return self._old.get(event) if found is None else found

    def update(self, contents: Mapping[int, int]) -> None:
        """Remember more, forgetting the oldest."""
        self._young.update(contents)
        if 2 * len(self._young) >= self.limit:
            self._old, self._young = self._young, {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)
