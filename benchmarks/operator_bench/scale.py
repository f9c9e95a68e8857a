# SPDX-License-Identifier: Apache-2.0
"""Steady state, warm restart and memory with thousands of models that are trained and served."""

from __future__ import annotations

import statistics
import time
from dataclasses import asdict, dataclass, field

from operator_bench import population
from operator_bench.bulk import versions
from operator_bench.operators import Measured, cpu_seconds, memory, running
from operator_bench.report import say
from operator_bench.world import World
from support.waiting import wait_for
from thinkrec_operator.cluster import resources

STEADY_SECONDS = 30.0
RESYNC_DEFAULT = 600.0
RESYNC_TEST = 180
_PATHS = tuple(
    resource.path(None) for resource in (resources.MODEL, *resources.WATCHED[:1], resources.DEPLOYMENT)
) + tuple(resource.path(None) for resource in resources.LISTED)


@dataclass
class Scale:
    """Numbers for one size."""

    models: int
    ready_seconds: list[float] = field(default_factory=list)
    """Until all is listed: from then on what happens is dealt with first."""
    warm_seconds: list[float] = field(default_factory=list)
    warm_cpu_seconds: list[float] = field(default_factory=list)
    warm_writes: float = 0.0
    memory_mb: float = 0.0
    memory_peak_mb: float = 0.0
    idle_core: float = 0.0
    """Share of a core without a resync."""
    resync_cpu_seconds: float = 0.0
    steady_writes: float = 0.0
    changed_objects: int = 0
    load: list[float] = field(default_factory=list)

    @property
    def steady_core(self) -> float:
        """Return the share of a core with a resync every ten minutes."""
        return self.idle_core + self.resync_cpu_seconds / RESYNC_DEFAULT

    def summary(self) -> dict[str, object]:
        """Return everything for JSON."""
        return {
            **asdict(self),
            "steady_core": self.steady_core,
            "warm_median_seconds": statistics.median(self.warm_seconds),
        }


def measure(world: World, template: population.Template, models: int, *, rounds: int) -> Scale:
    """Fill a control plane whose controllers are stopped, and measure."""
    found = Scale(models)
    say(f"{models} models: writing them")
    population.served_models(world.cluster, models, template)
    before = versions(world.cluster, *_PATHS)
    for round_ in range(rounds):
        with running(world.cluster.kubeconfig, world.folder / f"warm-{models}-{round_}.log") as operator:
            restarted(operator, found)
            say(f"warm restart in {found.warm_seconds[-1]:.1f} s")
            if round_ == 0:
                idle(operator, found)
    resync(world, found)
    say(f"a resync needs {found.resync_cpu_seconds:.1f} s of CPU")
    after = versions(world.cluster, *_PATHS)
    found.changed_objects = sum(before.get(uid) != version for uid, version in after.items()) + len(before) - len(after)
    return found


def restarted(operator: Measured, found: Scale) -> None:
    """Start again when everything is done: nothing may be written."""
    found.ready_seconds.append(operator.until_ready())
    seconds, work = operator.until_idle(found.models)
    found.warm_seconds.append(seconds)
    found.warm_cpu_seconds.append(cpu_seconds(operator.pid))
    found.warm_writes = max(found.warm_writes, work.writes)
    now, peak = memory(operator.pid)
    found.memory_mb, found.memory_peak_mb = max(found.memory_mb, now), max(found.memory_peak_mb, peak)


def idle(operator: Measured, found: Scale) -> None:
    """Watch it do nothing; ask it nothing meanwhile."""
    start, began, work = cpu_seconds(operator.pid), time.perf_counter(), operator.work()
    time.sleep(STEADY_SECONDS)
    found.idle_core = (cpu_seconds(operator.pid) - start) / (time.perf_counter() - began)
    after = operator.work()
    assert work is not None
    assert after is not None
    found.steady_writes = after.writes - work.writes


def resync(world: World, found: Scale) -> None:
    """Measure what one resync costs: everything is listed and compared again."""
    log = world.folder / f"resync-{found.models}.log"
    with running(world.cluster.kubeconfig, log, resync_seconds=str(RESYNC_TEST), log_level="info") as operator:
        _, work = operator.until_idle(found.models)
        assert time.perf_counter() - operator.began < RESYNC_TEST, "the resync began before the start was over"
        start = cpu_seconds(operator.pid)
        wait_for(lambda: listed(operator) >= 2 * work.lists, "a resync", seconds=2 * RESYNC_TEST, every=1.0)
        operator.until_idle(found.models)
        found.resync_cpu_seconds = cpu_seconds(operator.pid) - start
        now, peak = memory(operator.pid)
        found.memory_mb, found.memory_peak_mb = max(found.memory_mb, now), max(found.memory_peak_mb, peak)


def listed(operator: Measured) -> float:
    """Return how many pages of models it has listed so far."""
    work = operator.work()
    return work.lists if work is not None else 0.0
