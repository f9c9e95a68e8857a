# SPDX-License-Identifier: Apache-2.0
"""Whether an object still is what we wrote: every value of ours is there, whatever others added. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from thinkrec_crds import group
from thinkrec_operator.manifests.quantities import quantity

ANNOTATION_APPLIED = f"{group.GROUP}/applied-hash"
"""Digest of the whole manifest that was applied last; finds what a manifest no longer says."""


def stamped(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the manifest with its own digest as an annotation; the order of members does not matter."""
    meta = manifest["metadata"]
    digest = hashlib.blake2b(msgspec.json.encode(manifest, order="sorted"), digest_size=8).hexdigest()
    annotations = {**(meta.get("annotations") or {}), ANNOTATION_APPLIED: digest}
    return {**manifest, "metadata": {**meta, "annotations": annotations}}


def applied_hash(manifest: Mapping[str, Any]) -> str:
    """Return the digest that `stamped` put on a manifest."""
    digest: str = manifest["metadata"]["annotations"][ANNOTATION_APPLIED]
    return digest


def covers(live: Any, wanted: Any) -> bool:
    """Return whether `live` has everything `wanted` says.

    Objects may have more members and lists more elements (defaults, sidecars, another manager's fields); an element of
    a list of objects may stand at another place. Quantities are compared as numbers, because the apiserver rewrites
    them ("1000m" becomes "1").
    """
    if live == wanted:  # whole parts at a time, at the speed of C
        return True
    if isinstance(wanted, dict | Mapping):
        if not wanted:
            return live is None or isinstance(live, Mapping)
        return isinstance(live, dict | Mapping) and all(covers(live.get(name), item) for name, item in wanted.items())
    if isinstance(wanted, list | tuple):
        return _covers_list(live, wanted)
    return _same_quantity(live, wanted)


def _covers_list(live: Any, wanted: Sequence[Any]) -> bool:
    if not wanted:
        return live is None or isinstance(live, list | tuple)
    if not isinstance(live, list | tuple):
        return False
    if isinstance(wanted[0], dict | Mapping):
        return all(_covers_somewhere(live, item, place) for place, item in enumerate(wanted))
    return list(live) == list(wanted)


def _covers_somewhere(live: Sequence[Any], item: Any, place: int) -> bool:
    """Look at the item's own place first: it is there nearly always."""
    if place < len(live) and covers(live[place], item):
        return True
    return any(covers(candidate, item) for candidate in live)


def _same_quantity(live: Any, wanted: Any) -> bool:
    if not isinstance(live, str | int) or not isinstance(wanted, str | int) or isinstance(wanted, bool):
        return False
    try:
        return quantity(live) == quantity(wanted)
    except ValueError:
        return False
