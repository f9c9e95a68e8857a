# SPDX-License-Identifier: Apache-2.0
"""The stage in several pods, with the tables of one: whole chunks of conversations are shared out.

What is asked for, and in which wording, depends on a chunk and its number alone, so the pods together hold the
conversations that one pod would hold. The pool is scored by whoever comes first; each finished chunk is a note on the
board, so that a killed pod asks nothing twice, and every pod knows when the chunks before its next one hold enough.
Chunks beyond that were asked for by pods that ran ahead: at most a few, and the tables leave them out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from thinkrec_crds.prompt import ItemText
from thinkrec_crds.stages import TracesParameters
from thinkrec_trainer.context import LocalArtifact, StageContext
from thinkrec_trainer.shards import Shard
from thinkrec_trainer.store import Blobs
from thinkrec_trainer.teacher import Teacher, Usage
from thinkrec_trainer.traces.dialogue import Case, Outcome, converse
from thinkrec_trainer.traces.work import Work

POOL_NOTE = "pool.json"
_CHUNK_PREFIX = "chunk-"


def agreed_pool(board: Blobs, score: Callable[[], Work]) -> Work:
    """Return the wrong samples that all pods go by: those that the first pod found.

    Other hardware may round a score to the other side of the threshold; then chunk numbers would mean different things.
    """
    if (known := board.read(POOL_NOTE)) is None:
        board.create(POOL_NOTE, score().to_json())
        known = board.read(POOL_NOTE)
    assert known is not None
    return Work.from_json(known)


@dataclass(slots=True)
class Chunks:
    """The finished chunks of all pods, as far as this one has read them."""

    board: Blobs
    done: dict[int, Work] = field(default_factory=dict)

    def refresh(self) -> None:
        """Read the notes that are new."""
        for blob in self.board.list(_CHUNK_PREFIX):
            number = _number(blob.name)
            if number is None or number in self.done:
                continue
            if (data := self.board.read(blob.name)) is not None:
                self.done[number] = Work.from_json(data)

    def post(self, number: int, work: Work) -> None:
        """Leave a note; when an earlier attempt of this pod was faster, its note stands."""
        self.board.create(_note(number), work.to_json())
        self.refresh()

    def kept_before(self, number: int) -> int:
        """Return how many traces the chunks before that one hold, as far as they are finished."""
        return sum(len(work.kept()) for place, work in self.done.items() if place < number)


def ask_share(
    context: StageContext,
    given: TracesParameters,
    shard: Shard,
    chunks: Sequence[Sequence[Case]],
    catalogue: Sequence[ItemText],
    connect: Callable[[], Teacher],
) -> dict[int, Work]:
    """Hold the conversations of this pod's chunks while the chunks before hold too few traces; return them."""
    notes = Chunks(shard.board)
    notes.refresh()
    mine = shard.stride(range(len(chunks)))
    teacher: Teacher | None = None
    try:
        for place, number in enumerate(mine):
            context.checkpoint.raise_if_interrupted()
            if notes.kept_before(number) >= given.max_samples:
                break
            if number in notes.done:
                continue
            teacher = teacher or connect()
            notes.post(number, _hold(context, given, chunks[number], catalogue, teacher))
            context.progress.update(place + 1, len(mine), f"{notes.kept_before(len(chunks))} kept by all pods")
    finally:
        if teacher is not None:
            teacher.close()
    context.progress.update(len(mine), len(mine), "asked enough")
    return {number: notes.done[number] for number in mine if number in notes.done}


def joined(pool: Work, chunks: Mapping[int, Work], *, limit: int) -> Work:
    """Return what one pod would have after the chunks in their order, until `limit` traces are kept.

    Tokens count in full, also those of chunks beyond.
    """
    outcomes: list[Outcome] = []
    kept = 0
    for _, work in sorted(chunks.items()):
        if kept >= limit:
            break
        outcomes += work.outcomes
        kept += len(work.kept())
    usage = Usage()
    for work in chunks.values():
        usage = usage.added(work.usage)
    return replace(pool, outcomes=outcomes, usage=usage)


def write_share(folder: Path, pool: Work, chunks: Mapping[int, Work]) -> None:
    """Write this pod's files."""
    for name, work in {POOL_NOTE: pool, **{_note(number): work for number, work in chunks.items()}}.items():
        (folder / name).write_bytes(work.to_json())


def read_shares(parts: Sequence[LocalArtifact]) -> tuple[Work, dict[int, Work]]:
    """Return the agreed pool, and the chunks of all pods."""
    chunks = {
        number: Work.from_json(part.file(entry.path).read_bytes())
        for part in parts
        for entry in part.manifest.files
        if (number := _number(entry.path)) is not None
    }
    return Work.from_json(parts[0].file(POOL_NOTE).read_bytes()), chunks


def _note(number: int) -> str:
    return f"{_CHUNK_PREFIX}{number:06d}.json"


def _number(note: str) -> int | None:
    """Return the chunk that a note or file of that name holds; None when it is no chunk's."""
    middle = note.removeprefix(_CHUNK_PREFIX).removesuffix(".json")
    return int(middle) if note == f"{_CHUNK_PREFIX}{middle}.json" and middle.isdigit() else None


def _hold(
    context: StageContext,
    given: TracesParameters,
    chunk: Sequence[Case],
    catalogue: Sequence[ItemText],
    teacher: Teacher,
) -> Work:
    before = teacher.usage
    pause = context.checkpoint.raise_if_interrupted
    outcomes = converse(chunk, catalogue, teacher, max_rounds=given.teacher.max_rounds, pause=pause)
    return Work(outcomes=outcomes, usage=teacher.usage.added(before, sign=-1))
