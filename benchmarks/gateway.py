# SPDX-License-Identifier: Apache-2.0
"""What experiments and feedback cost a gateway; its targets are in the table.

    python benchmarks/gateway.py [--rounds 5] [--json gateway.json]

    assignment   one user in one experiment
    request      what experiments add to a recommendation of one's own model: assignment and exposures; the scorer
                 answers at once, so that nothing hides it. With and without are measured in turns
    feedback     appends per second, group commit beside one fsync per append (the same log behind a lock); on the disk
                 as it is, and with 4 ms more per fsync, as a network disk takes

Everything runs in one process, in turns; numbers are medians over rounds.
"""

from __future__ import annotations

import sys

# The folder holds an `operator.py`, which must not stand before the standard library's.
sys.path.sort(key=lambda entry: entry.rstrip("/").endswith("benchmarks"))

import argparse
import asyncio
import contextlib
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.extend(str(Path(__file__).resolve().parents[1] / folder) for folder in ("benchmarks", "tests", "scripts"))

from operator_bench.report import Line, save, say, table

from support.direct_scorer import DirectScorer
from support.event_writer import feedback
from support.small_bundle import write_small_bundle
from thinkrec_crds.traffic import TrafficExperiment
from thinkrec_inference.gateway.assignment import Assigner
from thinkrec_inference.gateway.events import EventLog
from thinkrec_inference.gateway.forwarding import Forwarder
from thinkrec_inference.gateway.metrics import GatewayMetrics
from thinkrec_inference.gateway.mirroring import Mirror
from thinkrec_inference.gateway.recommend import Recommender
from thinkrec_inference.gateway.retrieval import load_catalogue
from thinkrec_inference.gateway.routing import Call, Router
from thinkrec_inference.gateway.schemas import RecommendRequest
from thinkrec_inference.gateway.traffic_file import TrafficFile
from thinkrec_inference.settings import GatewaySettings

SLOWER_SECONDS = 0.004
APPEND_SECONDS = 2.0
"""Of each measurement of the log."""
REQUESTS = 2000


def experiment(uid: str, variants: int) -> TrafficExperiment:
    """Return an experiment whose variants are all this gateway's own model."""
    names = ["control", *(f"v{number}" for number in range(1, variants))]
    weights = [100 - 10 * (variants - 1), *[10] * (variants - 1)]
    listed = [
        {"name": name, "revision": "1", "weight": weight, "ready": True}
        for name, weight in zip(names, weights, strict=True)
    ]
    body = {"uid": uid, "name": f"e-{uid}", "mode": "ABTest", "control": "control", "variants": listed}
    return TrafficExperiment.model_validate(body)


def assignment(rounds: int) -> Iterator[Line]:
    """Time of one assignment, by number of variants."""
    users = [f"user-{number}" for number in range(20_000)]
    for count in (2, 8):
        assigner = Assigner.of(experiment("u1", count))
        found = []
        for _ in range(rounds):
            begun = time.perf_counter()
            for user in users:
                assigner.assign(assigner.unit(user, {}, {}))
            found.append((time.perf_counter() - begun) / len(users) * 1e6)
        yield Line(f"assignment, {count} variants", "µs", statistics.median(found), 20.0)


async def requests(rounds: int, folder: Path) -> list[Line]:
    """Median time that one and four experiments add to a request."""
    bundle = write_small_bundle(folder / "bundle")
    settings = GatewaySettings(bundle_dir=bundle, events_dir=folder / "events", max_candidates=5, retrieve_factor=2)
    recommender = Recommender(load_catalogue(bundle), DirectScorer(), settings)
    log, forwarder, metrics = EventLog(settings.events_dir), Forwarder.open(), GatewayMetrics()

    def router(count: int) -> Router:
        traffic = TrafficFile(None, tuple(Assigner.of(experiment(f"u{each}", 2)) for each in range(count)))
        mirror = Mirror(recommender, forwarder, log, metrics)
        return Router(recommender, traffic, forwarder, mirror, log, metrics)

    ways = {count: router(count) for count in (0, 1, 4)}
    seconds: dict[int, list[float]] = {count: [] for count in ways}
    for number in range(rounds * REQUESTS):
        for count, way in ways.items():
            call = Call(RecommendRequest(user_id=f"user-{number}", k=2), b"")
            begun = time.perf_counter()
            await way.recommend(call)
            seconds[count].append(time.perf_counter() - begun)
    log.close()
    await forwarder.close()
    p50 = {count: 1000 * statistics.median(found) for count, found in seconds.items()}
    return [
        Line("request without experiments, p50", "ms", p50[0]),
        Line("added by one experiment, p50", "ms", p50[1] - p50[0], 1.0),
        Line("added by four experiments, p50", "ms", p50[4] - p50[0], 1.0),
    ]


def appends(folder: Path, threads: int, lock: contextlib.AbstractContextManager[object]) -> float:
    """Return appends per second of `threads` threads, each append within `lock`."""
    log = EventLog(folder)
    done, until = [0] * threads, time.perf_counter() + APPEND_SECONDS

    def send(name: int) -> None:
        while time.perf_counter() < until:
            event = feedback(f"{name}-{done[name]}", done[name])
            with lock:
                log.append([event])
            done[name] += 1

    running = [threading.Thread(target=send, args=(name,)) for name in range(threads)]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    log.close()
    return sum(done) / APPEND_SECONDS


@contextlib.contextmanager
def slower_disk(seconds: float) -> Iterator[None]:
    """Let each fsync take so much longer."""
    real = os.fsync

    def fsync(descriptor: int) -> None:
        time.sleep(seconds)
        real(descriptor)

    os.fsync = fsync  # type: ignore[assignment]
    try:
        yield
    finally:
        os.fsync = real


def log_throughput(rounds: int, folder: Path) -> Iterator[Line]:
    """Appends per second: alone and with sixteen callers, one fsync each and shared."""
    for disk, seconds in (("", 0.0), (", fsync 4 ms slower", SLOWER_SECONDS)):
        for threads in (1, 16):
            found: dict[str, list[float]] = {"one fsync each": [], "group commit": []}
            for number in range(rounds):
                for way, lock in (("one fsync each", threading.Lock()), ("group commit", contextlib.nullcontext())):
                    place = folder / f"log-{disk}-{threads}-{number}-{way}".replace(" ", "-")
                    with slower_disk(seconds):
                        found[way].append(appends(place, threads, lock))
            for way, values in found.items():
                yield Line(f"{threads} callers, {way}{disk}", "appends/s", statistics.median(values))


def main() -> None:
    """Measure, print the table, save the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lines = [*assignment(options.rounds), *asyncio.run(requests(options.rounds, folder))]
        lines += log_throughput(options.rounds, folder)
    say("done")
    print(table(lines))
    if options.json:
        save(options.json, lines, {})


if __name__ == "__main__":
    main()
