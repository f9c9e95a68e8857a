# SPDX-License-Identifier: Apache-2.0
"""One stage in N pods: each publishes its share, and whoever finds all shares published publishes the whole.

A pod publishes first and looks afterwards, so the last one to publish always sees all of them: no pod waits for
another, and none is special. Two that see all at once both merge; the store lets one of them win.

    <parent of the artifact>/.shards/<key>/<N>-<inputs>/<index>/   the share of one pod, an artifact of its own
                                                       /board/     notes that the pods leave for each other

N and a digest of the inputs are part of the address: shares of another count, or of inputs that were made again since,
are never mixed in. All of it is removed once the whole is published.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeVar

from thinkrec_crds.artifact import MANIFEST_NAME, TerminationMessage
from thinkrec_crds.scale_out import INDEX_VARIABLE, LARGEST_SHARD_COUNT, SHARD_COUNT_VARIABLE, SHARDED_KINDS
from thinkrec_crds.stages import StageSpec
from thinkrec_trainer import store, termination
from thinkrec_trainer.context import LocalArtifact, StageContext, StageResult
from thinkrec_trainer.errors import BadInput, StageError
from thinkrec_trainer.publication import produce, published_already

Item = TypeVar("Item")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Shard:
    """One pod's part."""

    index: int
    count: int
    board: store.Blobs
    """Notes for the other pods; `create` lets the first one of a name stand."""

    @property
    def name(self) -> str:
        """As in messages and folders."""
        return f"{self.index}-of-{self.count}"

    def stride(self, items: Sequence[Item]) -> list[Item]:
        """Return every N-th item, from this pod's own number on."""
        return list(items[self.index :: self.count])

    def owns(self, name: str) -> bool:
        """Return whether what is called `name` falls to this pod; depends on nothing but the name and N."""
        return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big") % self.count == self.index


@dataclass(frozen=True, slots=True)
class ShardedStage:
    """The two halves of a stage that several pods may do together."""

    share: Callable[[StageContext, Shard], StageResult]
    """Write this pod's part into `context.output`."""
    merge: Callable[[StageContext, Sequence[LocalArtifact]], StageResult]
    """Write the whole stage's files into `context.output`, from the parts in the order of their index."""


def shard_of(spec: StageSpec, environment: Mapping[str, str]) -> Shard | None:
    """Return this pod's part, None where it has the whole stage to itself.

    Raise BadInput for numbers that make no sense, and for a stage that cannot be shared out.
    """
    count = _number(environment, SHARD_COUNT_VARIABLE, default=1)
    if count == 1:
        return None
    if not 1 < count <= LARGEST_SHARD_COUNT:
        raise BadInput(f"{SHARD_COUNT_VARIABLE} is {count}: give 1 to {LARGEST_SHARD_COUNT}")
    if spec.kind not in SHARDED_KINDS:
        able = ", ".join(sorted(kind.value for kind in SHARDED_KINDS))
        raise BadInput(f"{SHARD_COUNT_VARIABLE} is {count}, but stage {spec.name} runs in one pod; only {able} can")
    index = _number(environment, INDEX_VARIABLE, default=None)
    if not 0 <= index < count:
        raise BadInput(f"{INDEX_VARIABLE} is {index}, but {SHARD_COUNT_VARIABLE} is {count}: give 0 to {count - 1}")
    return Shard(index, count, store.open_blobs(store.join(_folder(spec, count), "board"), spec.store))


def run_shard(
    spec: StageSpec, shard: Shard, stage: ShardedStage, context: Callable[[], StageContext]
) -> TerminationMessage:
    """Publish this pod's share unless it is there already, and the whole if no share is missing.

    `context` prepares the stage, and is called only where there is something to do.
    """
    own = _share(spec, shard.count, shard.index)
    prepared: StageContext | None = None
    mine = published_already(spec, own)
    if mine is None:
        prepared = context()
        mine = _publish_share(prepared, own, shard, stage)
    if missing := _missing(spec, shard.count):
        _log.info("stage %s still lacks %d of %d shares", spec.name, len(missing), shard.count)
        return _left_to_others(spec, shard, own, mine)
    prepared = prepared or context()
    published = _publish_whole(prepared, shard, stage)
    remove_shards(spec)
    return termination.success(spec, published)


def remove_shards(spec: StageSpec) -> None:
    """Remove every share and note of a key; what cannot be removed is named in the log and does no harm."""
    try:
        blobs = store.open_blobs(_root(spec), spec.store)
        names = [blob.name for blob in blobs.list()]
        blobs.delete(sorted(names, key=lambda name: not name.endswith(MANIFEST_NAME)))
    except StageError as error:
        _log.warning("shares of stage %s remain in the store: %s", spec.name, error)


def combined(parts: Sequence[LocalArtifact]) -> StageResult:
    """Return counts summed, and sources joined, over all parts."""
    names = sorted({name for part in parts for name in part.manifest.counts})
    sources: dict[str, str] = {}
    for part in parts:
        sources |= part.manifest.lineage.source_digests
    first = parts[0].manifest.lineage
    return StageResult(
        counts={name: sum(part.manifest.counts.get(name, 0) for part in parts) for name in names},
        source_digests=sources,
        device=first.device,
        precision=first.precision,
    )


def _publish_share(context: StageContext, own: store.Blobs, shard: Shard, stage: ShardedStage) -> store.Published:
    part = replace(context, output=_subfolder(context.output, shard.name))
    published = produce(part, own, lambda: stage.share(part, shard))
    _log.info("share %s of stage %s is published at %s", shard.name, context.spec.name, own.uri)
    return published


def _left_to_others(spec: StageSpec, shard: Shard, own: store.Blobs, mine: store.Published) -> TerminationMessage:
    """Return the message of a pod that finds shares missing: some pod still works, or the whole was published by now.

    In the second case the shares were removed, and this one, which came late, has to go too.
    """
    whole = published_already(spec, store.open_blobs(spec.output_uri, spec.store))
    if whole is None:
        return termination.share(spec, shard.name, mine)
    remove_shards(spec)
    return termination.success(spec, whole)


def _publish_whole(context: StageContext, shard: Shard, stage: ShardedStage) -> store.Published:
    """Merge all shares; when another pod was faster, what it published stands."""
    spec = context.spec
    blobs = store.open_blobs(spec.output_uri, spec.store)
    whole = replace(context, output=_subfolder(context.output, "whole"))
    try:
        parts = _collect(spec, shard.count, context.output / "parts")
    except BadInput:
        # The faster pod removes the shares, perhaps while they are read here; otherwise the error is a true one.
        if (published := published_already(spec, blobs)) is not None:
            return published
        raise
    return produce(whole, blobs, lambda: stage.merge(whole, parts))


def _collect(spec: StageSpec, count: int, folder: Path) -> list[LocalArtifact]:
    """Copy all shares here, verified: none may vanish while it is merged."""
    return [store.copy_artifact(_share(spec, count, index), folder / str(index)) for index in range(count)]


def _missing(spec: StageSpec, count: int) -> set[int]:
    names = {blob.name for blob in store.open_blobs(_folder(spec, count), spec.store).list()}
    return {index for index in range(count) if f"{index}/{MANIFEST_NAME}" not in names}


def _share(spec: StageSpec, count: int, index: int) -> store.Blobs:
    return store.open_blobs(store.join(_folder(spec, count), str(index)), spec.store)


def _folder(spec: StageSpec, count: int) -> str:
    inputs = json.dumps(sorted((ref.name, ref.digest) for ref in spec.inputs))
    return store.join(_root(spec), f"{count}-{hashlib.sha256(inputs.encode()).hexdigest()[:16]}")


def _root(spec: StageSpec) -> str:
    return store.join(store.parent(spec.output_uri), ".shards", spec.key)


def _subfolder(folder: Path, name: str) -> Path:
    made = folder / name
    made.mkdir()
    return made


def _number(environment: Mapping[str, str], name: str, *, default: int | None) -> int:
    text = environment.get(name, "").strip()
    if not text and default is not None:
        return default
    if not text.isascii() or not text.isdigit():
        raise BadInput(f"{name} is {text!r}, not a whole number: the pods of an Indexed Job have it")
    return int(text)
