# SPDX-License-Identifier: Apache-2.0
"""How much does one user's candidate cost? The engine beside the official way, the lean exact way and the floor.

    python benchmarks/serving.py MODEL_DIR [--candidates 20] [--rounds 3] [--json results.json]

All ways run interleaved in one process; the table shows medians of CPU seconds, because a shared machine's wall clock
measures its neighbours too. `largest gap` is the largest difference to exactly merged weights.

    official   PEFT `linear` fusion per user, switch, forward in batches of 4 with full-vocabulary logits, delete
    lean       weights merged exactly per user, forward in batches of 4, head at the last position only
    engine     gated stack, shared prefix, packed candidates
    warm       the same for a returning user, whose prefix is in the pool
    floor      the engine's forward without any adapter
"""

from __future__ import annotations

import sys

# The folder holds an `operator.py`, which must not stand before the standard library's.
sys.path.sort(key=lambda entry: entry.rstrip("/").endswith("benchmarks"))

import argparse
import copy
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))

from support.bundles import write_adapter
from thinkrec_crds.prompt import ItemText
from thinkrec_inference.engine.base_model import BaseModel, load_base
from thinkrec_inference.engine.lora import read_adapter
from thinkrec_inference.engine.scorer import ScoreJob, Scorer

WORDS = ("River", "Winter", "Silent", "Empire", "Garden", "Midnight", "Letters", "Hunter", "Golden", "Storm", "Crown")
GENRES = ("drama", "comedy", "film noir", "science fiction", "romance", "war", "thriller", "documentary")
EXPERTS = 5
OFFICIAL_BATCH = 4
GATES = torch.tensor([0.37, 0.14, 0.07, 0.07, 0.35, 0.0])


@dataclass(frozen=True, slots=True)
class Way:
    """One way to score, and the CPU seconds of its rounds."""

    name: str
    run: Callable[[], torch.Tensor]
    seconds: list[float]


def catalogue(count: int) -> tuple[ItemText, ...]:
    """Titles of two to five words and four keywords, so that suffixes differ in length."""
    words, genres = len(WORDS), len(GENRES)
    return tuple(
        ItemText(
            i,
            " ".join(["The", *(WORDS[(i * 5 + j * 3) % words] for j in range(1 + i % 4)), f"({1950 + i % 70})"]),
            tuple(GENRES[(i + j) % genres] for j in range(4)),
        )
        for i in range(count)
    )


def joint_prompts(scorer: Scorer, job: ScoreJob) -> list[list[int]]:
    """Whole prompts, one per candidate."""
    prefix = scorer.encoder.prefix(job.history, user_index=None, soft=False)
    return [list((prefix + scorer.encoder.suffix(item, soft=False)).ids) for item in job.candidates]


@torch.inference_mode()
def padded(model: Any, base: BaseModel, prompts: Sequence[list[int]], *, full: bool) -> torch.Tensor:
    """Score in right-padded batches; `full` computes the logits of every position, as the official code does."""
    found = []
    for start in range(0, len(prompts), OFFICIAL_BATCH):
        batch = prompts[start : start + OFFICIAL_BATCH]
        lengths = torch.tensor([len(prompt) for prompt in batch])
        ids = torch.zeros(len(batch), int(lengths.max()), dtype=torch.long)
        for row, prompt in enumerate(batch):
            ids[row, : len(prompt)] = torch.tensor(prompt)
        mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
        rows = torch.arange(len(batch))
        if full:
            logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[rows, lengths - 1]
            found.append(logits[:, base.yes_id] - logits[:, base.no_id])
        else:
            hidden = model.get_decoder()(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
            answers = model.get_output_embeddings().weight[[base.yes_id, base.no_id]]
            yes, no = (hidden[rows, lengths - 1] @ answers.T).unbind(1)
            found.append(yes - no)
    return torch.cat(found)


def official(base: BaseModel, folders: Sequence[Path], prompts: Sequence[list[int]]) -> Callable[[], torch.Tensor]:
    """The official code's way on a recent PEFT, dropout off."""
    model: Any = PeftModel.from_pretrained(copy.deepcopy(base.model), folders[0], adapter_name="0")
    for slot, folder in enumerate(folders[1:], start=1):
        model.load_adapter(folder, adapter_name=str(slot))
    used = [slot for slot, weight in enumerate(GATES.tolist()) if weight]

    def run() -> torch.Tensor:
        names, weights = [str(slot) for slot in used], GATES[used].tolist()
        model.add_weighted_adapter(names, weights, adapter_name="user", combination_type="linear")
        model.set_adapter("user")
        scores = padded(model.eval(), base, prompts, full=True)
        model.delete_adapter("user")
        return scores

    return run


def lean(base: BaseModel, folders: Sequence[Path], prompts: Sequence[list[int]]) -> Callable[[], torch.Tensor]:
    """Exact weights per user, merged into a copy of the model that is kept for the purpose."""
    model: Any = copy.deepcopy(base.model)
    adapters = [read_adapter(folder) for folder in folders]

    def run() -> torch.Tensor:
        for name in adapters[0].pairs:
            weight: Any = base.model.get_submodule(name).weight
            pairs = zip(adapters, GATES.tolist(), strict=True)
            delta = sum(w * a.scaling * (a.pairs[name][1] @ a.pairs[name][0]) for a, w in pairs if w)
            model.get_submodule(name).weight.copy_(weight + delta)
        return padded(model, base, prompts, full=False)

    return torch.inference_mode()(run)


def ways(base: BaseModel, folders: Sequence[Path], candidates: int) -> list[Way]:
    """All ways over the same prompts."""
    items = catalogue(10 + candidates)
    history = tuple((index, index % 3 != 0) for index in range(10))
    job = ScoreJob(history, tuple(range(10, 10 + candidates)), gates=GATES)
    engine = Scorer(base, items, adapters=folders)
    warm = Scorer(base, items, adapters=folders, pool_bytes=1 << 28)
    warm.score([job])
    bare = Scorer(base, items)
    prompts = joint_prompts(engine, job)
    return [
        Way("official", official(base, folders, prompts), []),
        Way("lean", lean(base, folders, prompts), []),
        Way("engine", lambda: engine.score([job])[0], []),
        Way("warm", lambda: warm.score([job])[0], []),
        Way("floor", lambda: bare.score([ScoreJob(job.history, job.candidates)])[0], []),
    ]


def measure(all_ways: Sequence[Way], rounds: int) -> dict[str, torch.Tensor]:
    """Run all ways interleaved; return each one's last scores."""
    scores: dict[str, torch.Tensor] = {}
    for _ in range(rounds):
        for way in all_ways:
            start = time.process_time()
            scores[way.name] = way.run()
            way.seconds.append(time.process_time() - start)
    return scores


def report(all_ways: Sequence[Way], scores: dict[str, torch.Tensor], candidates: int) -> list[dict[str, float | str]]:
    """Return one row per way."""
    slowest = statistics.median(all_ways[0].seconds)
    rows: list[dict[str, float | str]] = []
    for way in all_ways:
        seconds = statistics.median(way.seconds)
        gap = float((scores[way.name] - scores["lean"]).abs().max())
        rows.append(
            {
                "way": way.name,
                "cpu_seconds": round(seconds, 3),
                "candidates_per_second": round(candidates / seconds, 2),
                "times_official": round(slowest / seconds, 2),
                "largest_gap": gap,
            }
        )
    return rows


def main() -> None:
    """Parse, measure, print and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--candidates", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    base = load_base(arguments.model)
    with tempfile.TemporaryDirectory() as scratch:
        generator = torch.Generator().manual_seed(0)
        folders = [
            write_adapter(Path(scratch) / str(slot), base, generator, rank=8, alpha=16, strength=0.02)
            for slot in range(EXPERTS + 1)
        ]
        all_ways = ways(base, folders, arguments.candidates)
        rows = report(all_ways, measure(all_ways, arguments.rounds), arguments.candidates)
    print(f"{'way':10}{'CPU s':>9}{'cand/s':>9}{'x official':>12}{'largest gap':>14}")
    for row in rows:
        print(
            f"{row['way']:10}{row['cpu_seconds']:>9}{row['candidates_per_second']:>9}{row['times_official']:>12}"
            f"{row['largest_gap']:>14.1e}"
        )
    if arguments.json:
        settings = {"candidates": arguments.candidates, "rounds": arguments.rounds, "torch": torch.__version__}
        arguments.json.write_text(json.dumps({**settings, "threads": torch.get_num_threads(), "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
