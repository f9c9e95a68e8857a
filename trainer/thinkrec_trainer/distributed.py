# SPDX-License-Identifier: Apache-2.0
"""Several processes that train one model, as torchrun starts them: all take the same steps, each a part of the blocks.

A step's blocks are drawn alike by all, process r takes every W-th from r on, and gradients are summed over all before
the update, divided by the targets of the whole step. So the result is that of one process up to the order in which
floating-point numbers are added, whatever W is. Process 0 alone has checkpoints, progress and publication.

Whatever all must agree on (stop, save, the outcome) is exchanged, so that no process waits for one that has left. Only
tensors are exchanged, never pickled objects.
"""

from __future__ import annotations

import contextlib
import datetime
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor
from torch._C._distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

from thinkrec_crds.scale_out import RENDEZVOUS_VARIABLE
from thinkrec_crds.stages import ComputeOptions
from thinkrec_trainer.checkpoint import Checkpoints
from thinkrec_trainer.errors import Interrupted, Temporary
from thinkrec_trainer.launch import RENDEZVOUS_SECONDS

Item = TypeVar("Item")
CPU = torch.device("cpu")
STEP_MINUTES = 20
"""Longest wait for another process in the middle of a run: it may be saving or publishing."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class World:
    """This process among those that train together; the default is a process alone, for which all of it is free."""

    rank: int = 0
    size: int = 1
    device: torch.device = CPU
    """Where exchanged tensors lie: the backend's."""

    @property
    def leads(self) -> bool:
        """True for the process that reads and writes for all."""
        return self.rank == 0

    def part(self, items: Sequence[Item]) -> list[Item]:
        """Return this process's items of a step."""
        return list(items[self.rank :: self.size])

    def places(self, count: int) -> list[int]:
        """Return the places of this process's items among `count`."""
        return list(range(count))[self.rank :: self.size]

    @torch.no_grad()
    def add_up(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by its sum over all processes, in one exchange; equal on all, bit by bit."""
        if self.size == 1:
            return
        kept = list(tensors)
        flat = torch.cat([tensor.detach().to(self.device, torch.float32).flatten() for tensor in kept])
        with _explained():
            dist.all_reduce(flat)
        for tensor, found in zip(kept, torch.split(flat, [tensor.numel() for tensor in kept]), strict=True):
            tensor.copy_(found.view_as(tensor))

    def total(self, number: float) -> float:
        """Return the sum of a number over all processes."""
        if self.size == 1:
            return number
        held = torch.tensor([number], dtype=torch.float64, device=self.device)
        with _explained():
            dist.all_reduce(held)
        return float(held.item())

    @torch.no_grad()
    def copy_first(self, tensors: Iterable[Tensor]) -> None:
        """Replace each tensor by that of process 0."""
        if self.size == 1:
            return
        for tensor in tensors:
            moved = tensor.detach().to(self.device)
            with _explained():
                dist.broadcast(moved, src=0)
            tensor.copy_(moved)

    def any(self, flag: bool) -> bool:
        """Return whether the flag is set in any process."""
        return flag if self.size == 1 else self._greatest(int(flag)) > 0

    def of_first(self, number: int) -> int:
        """Return what process 0 gives; the others' numbers do not matter. Numbers are not negative."""
        return number if self.size == 1 else self._greatest(number if self.leads else 0)

    def bytes_of_first(self, data: bytes) -> bytes:
        """Return the bytes that process 0 gives."""
        if self.size == 1:
            return data
        length = self.of_first(len(data))
        held = torch.zeros(length, dtype=torch.uint8, device=self.device)
        if self.leads and length:
            held.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
        with _explained():
            dist.broadcast(held, src=0)
        return held.cpu().numpy().tobytes()

    def _greatest(self, number: int) -> int:
        held = torch.tensor([number], dtype=torch.int64, device=self.device)
        with _explained():
            dist.all_reduce(held, op=dist.ReduceOp.MAX)
        return int(held.item())


ALONE = World()


@dataclass(frozen=True, slots=True)
class SharedCheckpoints:
    """The checkpoints of process 0, for all: every answer is the same in every process.

    Each method is an exchange, so all processes must call the same ones in the same order.
    """

    own: Checkpoints
    world: World

    @property
    def interrupted(self) -> bool:
        """True once a signal has arrived in any process."""
        return self.world.any(self.own.interrupted)

    def load(self) -> Path | None:
        """Return a local copy of what process 0 found."""
        found = self.own.load() if self.world.leads else None
        files = sorted(path for path in found.rglob("*") if path.is_file()) if found else []
        if (count := self.world.of_first(len(files))) == 0:
            return None
        target = found or self.own.work / "received"
        for number in range(count):
            self._receive(target, files[number] if files else None)
        return target

    def due(self) -> bool:
        """As process 0's clock says."""
        return bool(self.world.of_first(int(self.own.due())))

    def save(self, write: Callable[[Path], None]) -> None:
        """Let process 0 save."""
        if self.world.leads:
            self.own.save(write)

    def raise_if_interrupted(self) -> None:
        """Raise Interrupted in all processes when any was asked to stop."""
        if self.interrupted:
            raise Interrupted("stopped by a signal; what was saved is continued by the next attempt")

    def _receive(self, target: Path, source: Path | None) -> None:
        name = self.world.bytes_of_first(source.relative_to(target).as_posix().encode() if source else b"").decode()
        data = self.world.bytes_of_first(source.read_bytes() if source else b"")
        if source is None:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).write_bytes(data)


class Silence:
    """The progress of a process that does not lead: one training is one stream of lines."""

    def update(self, step: int, total: int, message: str = "", metrics: Mapping[str, float] | None = None) -> None:
        """Say nothing."""

    def flush(self) -> None:
        """Nothing is held back."""


@contextlib.contextmanager
def joined(options: ComputeOptions) -> Iterator[World]:
    """Meet the other processes that torchrun's variables name; Temporary when they do not all come in time.

    At the end all leave together: process 0's outcome is everybody's, so that none is done while another must retry.
    """
    rank, size, local = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    cuda = options.device != "Cpu" and torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(local)
    seconds = int(os.environ.get(RENDEZVOUS_VARIABLE) or RENDEZVOUS_SECONDS)
    where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
    try:
        store, rank, size = next(rendezvous("env://", timeout=datetime.timedelta(seconds=seconds)))
        store.set_timeout(datetime.timedelta(seconds=seconds))
        _meet(store, rank, size)
        dist.init_process_group(
            "nccl" if cuda else "gloo",
            store=PrefixStore("thinkrec", store),
            rank=rank,
            world_size=size,
            timeout=datetime.timedelta(minutes=STEP_MINUTES),
        )
    except (RuntimeError, ValueError, OSError) as error:
        raise Temporary(
            f"process {rank} of {size} did not meet the others at {where} within {seconds} s ({_first_line(error)}): "
            "are all pods of this stage running, and may they reach each other on that port?"
        ) from error
    world = World(rank, size, torch.device("cuda", local) if cuda else CPU)
    _log.info("process %d of %d has met the others at %s", rank, size, where)
    yield world
    world.of_first(1)  # nobody is done before process 0 has published
    dist.destroy_process_group()


def _meet(store: Store, rank: int, size: int) -> None:
    """Wait until every process is there: only the store's own waits are bounded by the rendezvous' time."""
    store.set(f"thinkrec/here/{rank}", "1")
    store.wait([f"thinkrec/here/{other}" for other in range(size)])


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Turn a broken exchange into a temporary failure: another process has died or left."""
    try:
        yield
    except RuntimeError as error:
        raise Temporary(
            f"another process of this training is gone ({_first_line(error)}): its own log says why; "
            "the next attempt continues from the newest checkpoint"
        ) from error


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0][:200]}"
