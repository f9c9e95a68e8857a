# SPDX-License-Identifier: Apache-2.0
"""Training speed: history blocks against the official loop, in one process, interleaved, medians.

    python benchmarks/training.py                            # SmolLM2-135M on MovieLens-100K, about three minutes
    python benchmarks/training.py --blocks 8 16 32 --rounds 5 --json training.json

The official loop trains one sample per pass and computes the full vocabulary at every position; ours packs targets of a
user behind one shared history and computes two columns at one position each. Both compute the same gradient, which is
checked here before anything is timed.
"""

from __future__ import annotations

import sys

# The folder holds an `operator.py`, which must not stand before the standard library's.
sys.path.sort(key=lambda entry: entry.rstrip("/").endswith("benchmarks"))

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "scripts"))
import example_data
from thinkrec_crds.prompt import ItemText, PromptTemplate
from thinkrec_crds.stages import ComputeOptions, LoraParameters
from thinkrec_inference.engine.base_model import BaseModel, load_base
from thinkrec_inference.engine.device import resolve, set_threads
from thinkrec_inference.engine.tokens import PromptEncoder
from thinkrec_trainer.batches import collate
from thinkrec_trainer.blocks import Block, Target, make_block
from thinkrec_trainer.forward import BlockModel
from thinkrec_trainer.lora import add_lora, trained_parameters
from thinkrec_trainer.samples import SCORE_ONLY, Packer
from thinkrec_trainer.timelines import Timelines

HISTORY = 10
LARGEST_DIFFERENCE = 1e-4
"""Relative, between the two gradients in fp32; the packed one sums in another order."""


@dataclass(frozen=True, slots=True)
class Bench:
    """Model and data."""

    base: BaseModel
    model: Any
    blocks: BlockModel
    packer: Packer
    timelines: Timelines
    precision: str

    def block(self, users: Sequence[int], number: int, size: int) -> Block:
        """Return a block of `size` targets; the same number gives the same user and start for every size."""
        user = users[number % len(users)]
        rows = self.timelines.rows(user)
        targets = [Target(position, rows[position]) for position in range(HISTORY, HISTORY + size)]
        return make_block(rows, targets, user_index=user, start=HISTORY, history_length=HISTORY)


def read_movielens(folder: Path) -> tuple[Timelines, tuple[ItemText, ...]]:
    """Return every interaction in time order and the catalogue."""
    names = ["user", "item", "rating", "time"]
    ratings = pl.read_csv(folder / "ml-100k.inter", separator="\t", new_columns=names, infer_schema_length=None)
    items = pl.read_csv(
        folder / "ml-100k.item",
        separator="\t",
        encoding="latin-1",
        new_columns=["item", "title", "year", "class"],
        quote_char=None,
        infer_schema_length=None,
    ).with_row_index("index")
    table = ratings.join(items, on="item").sort("user", "time", "item")
    owners, counts = np.unique(table["user"].to_numpy(), return_counts=True)
    timelines = Timelines(
        offsets=np.cumsum([0, *counts]),
        items=table["index"].to_numpy().astype(np.int64),
        liked=(table["rating"].to_numpy() >= 4),
        train_rows=counts.astype(np.int64),
    )
    assert timelines.users == len(owners)
    texts = items.select("index", "title", "class").iter_rows()
    return timelines, tuple(ItemText(index, title, tuple((words or "").split())) for index, title, words in texts)


def prepare(options: argparse.Namespace) -> Bench:
    """Load everything."""
    compute = ComputeOptions(precision=options.precision, threads=options.threads)
    set_threads(compute)
    device = resolve(compute)
    base = load_base(options.base_model or example_data.smollm2(), device=device.device, dtype=device.dtype)
    timelines, catalogue = read_movielens(options.ratings or example_data.movielens())
    model = add_lora(base.model, LoraParameters(dropout=0.0), seed=0)
    for name, parameter in trained_parameters(model).items():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02, generator=torch.Generator().manual_seed(1))
    encoder = PromptEncoder(base.tokenizer, PromptTemplate(), catalogue, users=timelines.users)
    packer = Packer(encoder, base, soft=False, warm=frozenset())
    blocks = BlockModel(model.get_base_model(), yes=base.yes_id, no=base.no_id, score="YesMinusNo")
    return Bench(base, model, blocks, packer, timelines, device.precision)


def official(bench: Bench, block: Block) -> None:
    """One pass per sample, full logits of all positions."""
    history = tuple((row.item_index, row.liked) for row in block.history)
    for target in block.targets:
        encoder = bench.packer.encoder
        prompt = encoder.prefix(history, user_index=None, soft=False) + encoder.suffix(
            target.row.item_index, soft=False
        )
        logits = bench.model(input_ids=torch.tensor([prompt.ids], device=bench.blocks.device)).logits[0, -1].float()
        score = logits[bench.base.yes_id] - logits[bench.base.no_id]
        loss = functional.binary_cross_entropy_with_logits(score, score.new_tensor(float(target.row.liked)))
        torch.autograd.backward(loss / len(block.targets))


def packed(bench: Bench, block: Block) -> None:
    """One pass per history block."""
    batch = collate([bench.packer.pack(block, SCORE_ONLY)]).to(bench.blocks.device)
    torch.autograd.backward(bench.blocks.losses(batch).total / len(block.targets))


def gradient(bench: Bench, step: Callable[[Bench, Block], None], block: Block) -> torch.Tensor:
    """Return the flat gradient of one step."""
    bench.model.zero_grad(set_to_none=True)
    step(bench, block)
    parts = [value.grad for value in trained_parameters(bench.model).values() if value.grad is not None]
    return torch.cat([part.float().flatten() for part in parts])


def seconds(bench: Bench, step: Callable[[Bench, Block], None], block: Block) -> float:
    """Return how long one step takes."""
    bench.model.zero_grad(set_to_none=True)
    started = time.perf_counter()
    step(bench, block)
    if bench.blocks.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - started


def measure(bench: Bench, sizes: Sequence[int], *, official_size: int, rounds: int) -> dict[str, list[float]]:
    """Return samples per second of every variant and round, interleaved so that a busy machine hits all alike."""
    long_enough = np.flatnonzero(bench.timelines.lengths() >= HISTORY + max(*sizes, official_size)).tolist()
    users = np.random.default_rng(0).permutation(long_enough).tolist()
    found: dict[str, list[float]] = {}
    for number in range(rounds):
        taken = seconds(bench, official, bench.block(users, number, official_size))
        found.setdefault("official, batch 1", []).append(official_size / taken)
        for size in sizes:
            taken = seconds(bench, packed, bench.block(users, number, size))
            found.setdefault(f"history block {size}", []).append(size / taken)
    return found


def difference(bench: Bench, size: int) -> float:
    """Return the relative difference of the two gradients on one block."""
    users = np.flatnonzero(bench.timelines.lengths() >= HISTORY + size).tolist()
    block = bench.block(users, 0, size)
    reference = gradient(bench, official, block)
    return float((gradient(bench, packed, block) - reference).norm() / reference.norm())


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-model", type=Path, help="folder with safetensors; default SmolLM2-135M-Instruct")
    parser.add_argument("--ratings", type=Path, help="folder with ml-100k.inter and .item; default from its package")
    parser.add_argument("--blocks", type=int, nargs="+", default=[8, 16], help="history block sizes")
    parser.add_argument("--official-samples", type=int, default=4, help="samples per timing of the official loop")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", choices=["Auto", "Float32", "BFloat16"], default="Auto")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    options = parser.parse_args()

    bench = prepare(options)
    apart = difference(bench, min(options.blocks))
    if bench.precision == "Float32" and apart > LARGEST_DIFFERENCE:
        raise SystemExit(f"the gradients differ by {apart:.2e}, more than {LARGEST_DIFFERENCE:.0e}: nothing to compare")
    found = measure(bench, options.blocks, official_size=options.official_samples, rounds=options.rounds)
    medians = {name: statistics.median(rates) for name, rates in found.items()}
    reference = medians["official, batch 1"]
    print(f"{bench.precision}, {torch.get_num_threads()} threads, gradients {apart:.1e} apart (relative)\n")
    print("| variant | samples/s | vs official | spread |\n|---|---|---|---|")
    for name, rates in found.items():
        spread = f"{min(rates):.2f} - {max(rates):.2f}"
        print(f"| {name} | {medians[name]:.2f} | {medians[name] / reference:.1f} | {spread} |")
    if options.json:
        body = {"precision": bench.precision, "gradient_difference": apart, "samples_per_second": found}
        options.json.write_text(json.dumps(body, indent=1) + "\n")


if __name__ == "__main__":
    main()
