# SPDX-License-Identifier: Apache-2.0
"""Sums by cell are the sums of the same users, however they are cut into cells and parts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from thinkrec_trainer.analysis.estimates import estimate
from thinkrec_trainer.analysis.sums import Sums, sums_of
from thinkrec_trainer.online.gathered import COUNTS_NAME, MOMENTS_NAME, Counts, Gathered, loaded, total
from thinkrec_trainer.online.mirrored import Mean, MirrorTotal
from thinkrec_trainer.online.moments import Moments, moments_of

CELLS, USERS = 50, 2000


def world(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    return generator.normal(1e9, 1.0, (USERS, 2)), generator.integers(CELLS - 10, size=USERS)


def same(found: Sums, wanted: Sums) -> None:
    assert found.users == wanted.users
    np.testing.assert_allclose(found.mean, wanted.mean, rtol=1e-15)
    np.testing.assert_allclose(found.scatter, wanted.scatter, rtol=1e-6, atol=1e-6)


def test_chosen_cells_give_the_sums_of_their_users() -> None:
    values, cells = world()
    found = moments_of("Ratio", values, cells, CELLS)
    chosen = np.arange(CELLS) % 3 == 0
    same(found.pooled(chosen), sums_of("Ratio", values[chosen[cells]]))
    same(found.pooled(np.ones(CELLS, dtype=np.bool_)), sums_of("Ratio", values))
    assert found.pooled(np.zeros(CELLS, dtype=np.bool_)).users == 0
    assert found.users[40:].sum() == 0


@pytest.mark.parametrize("cut", [0, 1, 700, USERS])
def test_parts_add_up(cut: int) -> None:
    values, cells = world()
    one, other = (moments_of("Ratio", values[part], cells[part], CELLS) for part in (slice(cut), slice(cut, None)))
    same(one.merged(other).pooled(np.ones(CELLS, dtype=np.bool_)), sums_of("Ratio", values))


def test_values_that_are_all_alike_have_no_variance_to_the_bit() -> None:
    cells = np.arange(USERS) % CELLS
    parts = [moments_of("Mean", np.full((USERS, 1), 0.1), cells, CELLS) for _ in range(3)]
    found = parts[0].merged(parts[1]).merged(parts[2]).pooled(np.ones(CELLS, dtype=np.bool_))
    assert estimate(found).spread == 0.0
    assert found.mean[0] == 0.1


def test_what_was_gathered_survives_its_files(tmp_path: Path) -> None:
    values, cells = world()
    counts = Counts(
        weights=("a=1,b=2",),
        requests={"a": 3},
        fallbacks={"a": 1},
        events=7,
        several=2,
        people={"b": 4},
        mirrored=(
            MirrorTotal(variant="b", branch="Fused", requests=2, errors=1, means={"overlap": Mean(sum=1.5, values=2)}),
        ),
    )
    kept = Gathered(
        counts, {"m/x": moments_of("Ratio", values, cells, CELLS), "g/x": moments_of("Mean", values[:, :1], cells, 60)}
    )
    kept.save(tmp_path)
    found = loaded(tmp_path / COUNTS_NAME, tmp_path / MOMENTS_NAME)
    assert found.counts == counts
    assert list(found.moments) == ["m/x", "g/x"]
    for name, moments in kept.moments.items():
        equal(found.moments[name], moments)


def test_nothing_gathered_survives_too_and_adds_nothing(tmp_path: Path) -> None:
    Gathered().save(tmp_path)
    nothing = loaded(tmp_path / COUNTS_NAME, tmp_path / MOMENTS_NAME)
    assert nothing == Gathered()
    values, cells = world()
    something = Gathered(Counts(events=3), {"m/x": moments_of("Ratio", values, cells, CELLS)})
    found = total([nothing, something, nothing])
    assert found.counts.events == 3
    equal(found.moments["m/x"], something.moments["m/x"])


def equal(found: Moments, wanted: Moments) -> None:
    assert found.kind == wanted.kind
    for one, other in ((found.users, wanted.users), (found.mean, wanted.mean), (found.scatter, wanted.scatter)):
        np.testing.assert_array_equal(one, other)
