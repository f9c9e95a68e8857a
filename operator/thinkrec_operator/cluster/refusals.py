# SPDX-License-Identifier: Apache-2.0
"""What the apiserver refused for good: told once, and tried again only when something changed.

A Job whose podTemplate is invalid, a namespace without quota, a policy that forbids it: the same call would be refused
every time. It is made again when the manifest is another one, or at the next resync (an administrator may have acted).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from thinkrec_operator.cluster.drift import applied_hash
from thinkrec_operator.cluster.errors import ApiError
from thinkrec_operator.cluster.pods import without_secrets
from thinkrec_operator.cluster.workqueue import Key
from thinkrec_operator.observed import Refusal


@dataclass(frozen=True, slots=True)
class _Entry:
    digest: str
    refusal: Refusal


class Refusals:
    """The latest refusal of each child."""

    def __init__(self) -> None:
        """Know of none."""
        self._found: dict[Key, dict[str, _Entry]] = {}
        self._terminating: dict[Key, str] = {}

    def of(self, key: Key) -> tuple[Refusal, ...]:
        """Return what was refused for a model, in the order of names."""
        found = self._found.get(key, {})
        return tuple(found[name].refusal for name in sorted(found))

    def is_terminating(self, key: Key, uid: str) -> bool:
        """Return whether nothing may be created for this model any more, because its namespace is being deleted."""
        return self._terminating.get(key) == uid

    def add(self, key: Key, manifest: Mapping[str, Any], error: ApiError) -> None:
        """Remember a refusal of this very manifest."""
        if error.namespace_terminating:
            self._terminating[key] = _owner(manifest)
            return
        name = manifest["metadata"]["name"]
        refusal = Refusal(manifest["kind"], name, error.reason, without_secrets(error.message))
        self._found.setdefault(key, {})[name] = _Entry(applied_hash(manifest), refusal)

    def stands(self, key: Key, manifest: Mapping[str, Any]) -> bool:
        """Return whether this very manifest was refused and nothing changed since."""
        if self.is_terminating(key, _owner(manifest)):
            return True
        entry = self._found.get(key, {}).get(manifest["metadata"]["name"])
        return entry is not None and entry.digest == applied_hash(manifest)

    def settle(self, key: Key, manifest: Mapping[str, Any]) -> bool:
        """Forget the refusal of a child that is there now; return whether there was one."""
        found = self._found.get(key, {})
        return found.pop(manifest["metadata"]["name"], None) is not None

    def keep(self, key: Key, names: set[str]) -> None:
        """Forget refusals of children that are no longer wanted."""
        found = self._found.get(key)
        if found is None:
            return
        for name in set(found) - names:
            del found[name]
        if not found:
            del self._found[key]

    def clear(self) -> set[Key]:
        """Let each be tried once more; return whose they were. Until one is there, it is still told as refused."""
        keys = set(self._found) | set(self._terminating)
        for found in self._found.values():
            for name, entry in found.items():
                found[name] = replace(entry, digest="")
        self._terminating.clear()
        return keys


def _owner(manifest: Mapping[str, Any]) -> str:
    uid: str = manifest["metadata"]["ownerReferences"][0]["uid"]
    return uid
