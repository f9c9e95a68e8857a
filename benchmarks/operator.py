# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: A005
"""How fast is the operator, and how little does it need? On the embedded control plane; its targets are in the table.

    python benchmarks/operator.py                                       # everything; half an hour on two idle cores
    python benchmarks/operator.py --models 1000 --rounds 3 --only scale latency --json operator.json

    scale      thousands of models that are trained and served: warm restart, steady state, memory, a resync
    latency    apply -> first Job, a Job's end -> the next Job, beside a thousand models; real Job controller
    trainer    children per second beside Kubeflow Trainer v2's controller, in turns on one API server

Times are those of this machine's clock at the arrival of watch events, never timestamps of objects.
"""

from __future__ import annotations

import sys

# This file's own name is that of a module of the standard library, so its folder must come last.
sys.path.sort(key=lambda entry: entry.rstrip("/").endswith("benchmarks"))

import argparse
import os
import statistics
from dataclasses import asdict
from pathlib import Path

sys.path.extend(str(Path(__file__).resolve().parents[1] / folder) for folder in ("benchmarks", "scripts", "tests"))

from operator_bench import latency, population, scale, trainer, world
from operator_bench.report import Line, percentile, save, say, table

PARTS = ("scale", "latency", "trainer")
EXISTING = 1000
RESULTS = tuple[list[Line], dict[str, object]]


def main() -> None:
    """Measure what was asked for, print the table, save the JSON."""
    options = _options()
    target = options.json.resolve() if options.json else None
    os.chdir("/")  # `python -m` looks for modules in the working folder first
    lines: list[Line] = []
    raw: dict[str, object] = {}
    if "scale" in options.only:
        _add(lines, raw, _scale(options.models, options.rounds))
    if "latency" in options.only:
        _add(lines, raw, _latency(options.samples))
    if "trainer" in options.only:
        _add(lines, raw, _trainer(options.children, options.rounds))
    print(table(lines))
    if target:
        save(target, lines, raw)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    numbers = {"type": lambda text: [int(part) for part in text.split(",")], "default": [1000, 10_000]}
    parser.add_argument("--models", help="sizes, comma-separated (default: 1000,10000)", **numbers)
    parser.add_argument("--rounds", type=int, default=3, help="repetitions of each measurement (default: 3)")
    parser.add_argument("--samples", type=int, default=100, help="models applied for the latencies (default: 100)")
    parser.add_argument("--children", type=int, default=500, help="children beside Kubeflow Trainer (default: 500)")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="parts to run (default: all)")
    parser.add_argument("--json", type=Path, help="file for the results")
    return parser.parse_args()


def _add(lines: list[Line], raw: dict[str, object], found: RESULTS) -> None:
    lines.extend(found[0])
    raw.update(found[1])


def _scale(sizes: list[int], rounds: int) -> RESULTS:
    found = []
    for size in sizes:
        with world.control_plane() as running:
            running.namespace(population.NAMESPACE)
            template = world.trained(running, running.namespace("template"))
            running.stop_controllers()
            found.append(scale.measure(running, template, size, rounds=rounds))
    lines = [line for one in found for line in _scale_lines(one)]
    if len(found) > 1:
        lines.append(_growth(found[0], found[-1]))
    return lines, {f"scale-{one.models}": one.summary() for one in found}


def _scale_lines(found: scale.Scale) -> list[Line]:
    name = f"{found.models} models"
    return [
        Line(f"{name}: warm restart until it reacts", "s", statistics.median(found.ready_seconds), 20),
        Line(f"{name}: warm restart until all is visited", "s", statistics.median(found.warm_seconds), 20),
        Line(f"{name}: CPU of that", "s", statistics.median(found.warm_cpu_seconds)),
        Line(f"{name}: writes of a warm restart", "calls", found.warm_writes, 0),
        Line(f"{name}: writes in the steady state", "calls", found.steady_writes, 0),
        Line(f"{name}: objects that changed meanwhile", "objects", found.changed_objects, 0),
        Line(f"{name}: idle between resyncs", "% of a core", 100 * found.idle_core, 2),
        Line(f"{name}: CPU of one resync", "s", found.resync_cpu_seconds),
        Line(f"{name}: steady state with a resync each 10 min", "% of a core", 100 * found.steady_core, 2),
        Line(f"{name}: resident memory", "MB", found.memory_mb, 250),
        Line(f"{name}: highest memory", "MB", found.memory_peak_mb),
    ]


def _growth(small: scale.Scale, large: scale.Scale) -> Line:
    """Return how much more CPU one model needs in the large population: 1 is linear."""
    each = [statistics.median(one.warm_cpu_seconds) / one.models for one in (small, large)]
    return Line(f"CPU per model, {large.models} against {small.models} models", "times", each[1] / each[0], 1.2)


def _latency(samples: int) -> RESULTS:
    with world.control_plane() as running:
        running.namespace(population.NAMESPACE)
        template = world.trained(running, running.namespace("template"))
        running.stop_controllers()
        population.served_models(running.cluster, EXISTING, template)
        latency.controllers(running)
        found = latency.measure(running, EXISTING, samples)
    first, following = found.apply_to_job, found.end_to_job
    lines = [
        Line(f"apply -> first Job beside {EXISTING}, median", "s", statistics.median(first), 0.3),
        Line(f"apply -> first Job beside {EXISTING}, p99", "s", percentile(first, 0.99), 1.0),
        Line("a Job's end -> next Job, median", "s", statistics.median(following), 0.3),
        Line("a Job's end -> next Job, p99", "s", percentile(following, 0.99)),
    ]
    return lines, {"latency": asdict(found)}


def _trainer(children: int, rounds: int) -> RESULTS:
    with world.control_plane() as running:
        running.stop_controllers()
        same, theirs, all_ = sides = trainer.compare(running, children, rounds)
    lines = [
        Line(f"CPU per child, {side.name}", "ms", 1000 * statistics.median(side.cpu_seconds) / side.children)
        for side in (theirs, same)
    ]
    target = statistics.median(theirs.seconds)
    told = f"{same.children} children of {same.applied} models, {theirs.applied} of TrainJobs"
    lines.append(Line(told, "s", statistics.median(same.seconds), target))
    told = f"{all_.children} children of {all_.applied} models, {theirs.applied} of TrainJobs"
    lines.append(Line(told, "s", statistics.median(all_.seconds), target))
    say("done")
    return lines, {"trainer": [asdict(side) for side in sides]}


if __name__ == "__main__":
    main()
