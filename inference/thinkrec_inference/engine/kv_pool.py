# SPDX-License-Identifier: Apache-2.0
"""Prefix keys and values of returning users, least recently used first out, limited by bytes."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable

from thinkrec_inference.engine.attention import KeyValues


class KvPool:
    """A bytes-limited LRU map; safe for several threads.

    A key must hold everything the values depend on: generation, fusion, gate bits, token ids and soft-token rows.
    """

    def __init__(self, capacity: int) -> None:
        """`capacity` in bytes; 0 keeps nothing."""
        self.capacity = capacity
        self.hits = 0
        self.misses = 0
        self._entries: OrderedDict[Hashable, KeyValues] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def nbytes(self) -> int:
        """Bytes now held."""
        return self._bytes

    def get(self, key: Hashable) -> KeyValues | None:
        """Return the entry and mark it as used, or None."""
        with self._lock:
            found = self._entries.get(key)
            if found is None:
                self.misses += 1
                return None
            self.hits += 1
            self._entries.move_to_end(key)
            return found

    def put(self, key: Hashable, value: KeyValues) -> None:
        """Keep an entry, dropping the least recently used ones; one larger than the pool is not kept."""
        if value.nbytes > self.capacity:
            return
        with self._lock:
            replaced = self._entries.pop(key, None)
            self._bytes += value.nbytes - (replaced.nbytes if replaced else 0)
            self._entries[key] = value
            while self._bytes > self.capacity:
                _, dropped = self._entries.popitem(last=False)
                self._bytes -= dropped.nbytes

    def clear(self) -> None:
        """Drop everything."""
        with self._lock:
            self._entries.clear()
            self._bytes = 0
