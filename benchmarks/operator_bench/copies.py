# SPDX-License-Identifier: Apache-2.0
"""Thousands of copies of a model and its children, put straight into the database while the API server is stopped.

Through the API ten thousand models with their children are seventy thousand writes. A copy differs from its original
only in texts of equal length (name, uids, digests), so that objects in protobuf stay whole.
"""

from __future__ import annotations

import base64
import re
import ssl
from collections.abc import Iterable, Iterator
from functools import partial

import httpx

from embedded_cluster.cluster import Cluster

_PER_CALL = 100
"""etcd takes 128 operations at most in one transaction."""
Stored = tuple[bytes, bytes]
"""Key and value in the database."""


class Database:
    """etcd of an embedded cluster, through its JSON gateway."""

    def __init__(self, cluster: Cluster) -> None:
        """Find it; nothing is contacted yet."""
        flags = dict(flag.lstrip("-").split("=", 1) for flag in cluster.processes.get("etcd").argv if "=" in flag)
        folder = cluster.state.certificates
        trust = ssl.create_default_context(cafile=str(folder / "ca.crt"))
        trust.load_cert_chain(folder / "etcd-client.crt", folder / "etcd-client.key")
        url = flags["listen-client-urls"]
        self._client = httpx.Client(base_url=url, verify=trust, trust_env=False, timeout=60)

    def below(self, prefix: bytes) -> list[Stored]:
        """Return everything below a prefix."""
        end = prefix[:-1] + bytes([prefix[-1] + 1])
        found = self._call("range", {"key": _text(prefix), "range_end": _text(end)})
        return [(base64.b64decode(item["key"]), base64.b64decode(item["value"])) for item in found.get("kvs", ())]

    def put(self, entries: Iterable[Stored]) -> None:
        """Write entries, many at a time."""
        batch: list[dict[str, object]] = []
        for key, value in entries:
            batch.append({"requestPut": {"key": _text(key), "value": _text(value)}})
            if len(batch) == _PER_CALL:
                self._call("txn", {"success": batch})
                batch = []
        if batch:
            self._call("txn", {"success": batch})

    def _call(self, what: str, body: dict[str, object]) -> dict[str, list[dict[str, str]]]:
        answer = self._client.post(f"/v3/kv/{what}", json=body)
        answer.raise_for_status()
        found: dict[str, list[dict[str, str]]] = answer.json()
        return found


def of_model(database: Database, namespace: str, name: str, address: str) -> list[Stored]:
    """Return the model, everything whose key names it, and the reservation of its Service's address."""
    path, reserved = f"/{namespace}/{name}".encode(), f"/registry/ipaddresses/{address}".encode()
    found = [entry for entry in database.below(b"/registry/") if path in entry[0] and b"/events/" not in entry[0]]
    return [*found, *database.below(reserved)]


def copies(original: list[Stored], changes: Iterable[dict[bytes, bytes]]) -> Iterator[Stored]:
    """Yield a copy of everything for each set of changes: texts, and what they become at the same length."""
    for change in changes:
        assert all(len(old) == len(new) for old, new in change.items()), f"a length differs: {change}"
        pattern = re.compile(b"|".join(re.escape(old) for old in change))
        changed = partial(_replacement, change)
        yield from ((pattern.sub(changed, key), pattern.sub(changed, value)) for key, value in original)


def _replacement(change: dict[bytes, bytes], found: re.Match[bytes]) -> bytes:
    return change[found.group()]


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
