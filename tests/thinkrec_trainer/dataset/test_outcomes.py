# SPDX-License-Identifier: Apache-2.0
"""Each kind of bad row and bad item has the outcome that docs/data.md defines: an error that names it, or a count."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from thinkrec_trainer.errors import BadInput

RunDataset = Callable[..., Any]
GOOD = [("u1", "i1", 5, 100), ("u1", "i2", 1, 200), ("u1", "i3", 4, 300)]


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (("", "i1", 5, 1), "missing_ids"),
        (("u1", None, 5, 1), "missing_ids"),
        (("  ", "i1", 5, 1), "missing_ids"),
        (("u1", "i9", "five", 1), "invalid_ratings"),
        (("u1", "i9", None, 1), "invalid_ratings"),
        (("u1", "i9", "NaN", 1), "invalid_ratings"),
        (("u1", "i9", "inf", 1), "invalid_ratings"),
        (("u1", "i9", -1, 1), "negative_ratings"),
        (("u1", "i9", 5, "yesterday"), "invalid_timestamps"),
        (("u1", "i9", 5, None), "invalid_timestamps"),
        (("u1", "i9", 5, "NaN"), "invalid_timestamps"),
        (("u1", "i1", 5, 100), "duplicates_dropped"),
        (("u1", "i1", 5, 999), "repeats_dropped"),
    ],
)
def test_bad_row_is_counted_and_skipped(run_dataset: RunDataset, bad: tuple[Any, ...], reason: str) -> None:
    clean = run_dataset(GOOD)
    outcome = run_dataset([*GOOD, bad])
    assert outcome.counts == {**clean.counts, "rows_read": 4, reason: 1}
    assert outcome.rows().drop("rating").equals(clean.rows().drop("rating"))


def test_of_duplicates_the_last_row_stays(run_dataset: RunDataset) -> None:
    outcome = run_dataset([*GOOD, ("u1", "i1", 2, 100), ("u1", "i1", 3, 100)])
    assert outcome.rows()["rating"].to_list() == [3.0, 1.0, 4.0]
    assert outcome.counts["duplicates_dropped"] == 2


def test_of_repeats_the_first_time_stays(run_dataset: RunDataset) -> None:
    """Whatever the order in the file: the earliest rating is what had to be predicted."""
    outcome = run_dataset([("u1", "i1", 1, 900), *GOOD])
    assert outcome.rows().select("item_id", "rating").rows() == [("i1", 5.0), ("i2", 1.0), ("i3", 4.0)]
    assert outcome.counts["repeats_dropped"] == 1


def test_signed_scale_keeps_negative_ratings(run_dataset: RunDataset) -> None:
    outcome = run_dataset([("u", "i1", -3, 1), ("u", "i2", 0, 2), ("u", "i3", 7, 3)], label_threshold=0.0)
    assert outcome.rows()["liked"].to_list() == [False, True, True]
    assert outcome.counts["negative_ratings"] == 0


def test_threshold_is_inclusive(run_dataset: RunDataset) -> None:
    outcome = run_dataset([("u", "i1", 3.9, 1), ("u", "i2", 4, 2), ("u", "i3", 4.5, 3)])
    assert outcome.rows()["liked"].to_list() == [False, True, True]


@pytest.mark.parametrize(
    ("rows", "field", "shown"),
    [
        ([("u", "i", "bad", 1), ("u", "i", "worse", 2)], "columns.rating is 'rating'", "['bad', 'worse']"),
        ([("u", "i", 5, "x")], "columns.timestamp is 'timestamp'", "['x']"),
        ([("", "i", 5, 1)], "columns.user is 'user_id'", "[None]"),
    ],
)
def test_all_rows_bad_is_bad_input(run_dataset: RunDataset, rows: list[Any], field: str, shown: str) -> None:
    with pytest.raises(BadInput) as caught:
        run_dataset(rows)
    assert field in str(caught.value)
    assert shown in str(caught.value)


def test_user_with_few_rows_trains_only(run_dataset: RunDataset) -> None:
    outcome = run_dataset([*GOOD, ("one", "i1", 5, 1), ("two", "i1", 5, 1), ("two", "i2", 5, 2)])
    splits = outcome.rows().select("user_id", "split").rows()
    assert {split for user, split in splits if user in ("one", "two")} == {"train"}
    assert outcome.counts["small_users"] == 2
    assert outcome.table("users")["train_rows"].to_list() == [1, 2, 1]


def test_items_without_title_or_metadata(run_dataset: RunDataset) -> None:
    items = [
        ("i1", None, "Drama"),
        ("i2", "  ", None),
        ("i2", "Second", None),
        (None, "No id", None),
        ("i8", "Unrated", None),
    ]
    outcome = run_dataset(GOOD, items)
    table = outcome.table("items").select("item_id", "title", "train_rows", "warm").rows()
    assert table == [
        ("i1", "Item i1", 1, True),
        ("i2", "Item i2", 0, False),
        ("i3", "Item i3", 0, False),
        ("i8", "Unrated", 0, False),
    ]
    counted = {k: v for k, v in outcome.counts.items() if "item" in k}
    assert counted == {
        "items": 4,
        "item_rows_read": 5,
        "item_missing_ids": 1,
        "item_malformed_lines": 0,
        "duplicate_items": 1,
        "items_without_title": 2,
        "items_without_metadata": 1,
    }


def test_digest_is_of_title_and_attributes(run_dataset: RunDataset) -> None:
    """Equal items of different data sets share a digest; a changed title or attribute changes it."""
    first = run_dataset(GOOD, [("i1", "One", "Drama"), ("i2", "One", "Drama"), ("i3", "One", "War")])
    second = run_dataset(GOOD, [("i1", "One!", "Drama"), ("i2", "One", "Drama"), ("i3", "One", "")])
    a, b = (outcome.table("items")["digest"].to_list() for outcome in (first, second))
    assert a[0] == a[1] == b[1]
    assert len({a[0], a[2], b[0], b[2]}) == 4


def test_sample_of_users_is_deterministic_nested_and_seeded(run_dataset: RunDataset) -> None:
    rows = [(f"u{n}", "i1", 5, n) for n in range(40)]

    def users(count: int, seed: int) -> set[str]:
        return set(run_dataset(rows, max_users=count, seed=seed).table("users")["user_id"])

    assert len(users(10, 0)) == 10
    assert users(10, 0) == users(10, 0)
    assert users(10, 0) < users(20, 0)
    assert users(10, 0) != users(10, 1)
    assert run_dataset(rows, max_users=10).counts["unsampled_rows"] == 30


def test_same_input_gives_the_same_bytes(run_dataset: RunDataset) -> None:
    one, two = run_dataset(GOOD), run_dataset(GOOD)
    names = sorted(path.name for path in one.folder.iterdir())
    assert names == [
        "items.parquet",
        "statistics.json",
        "test.parquet",
        "train.parquet",
        "users.parquet",
        "validation.parquet",
    ]
    assert all((one.folder / name).read_bytes() == (two.folder / name).read_bytes() for name in names)


def test_statistics_of_a_small_set(run_dataset: RunDataset) -> None:
    statistics = run_dataset([*GOOD, ("u2", "i1", 2, 50)]).statistics()
    assert statistics["users"] == 2
    assert statistics["items"] == 4
    assert statistics["ratedItems"] == 3
    assert [statistics["rows"][name]["rows"] for name in ("train", "validation", "test")] == [2, 1, 1]
    assert statistics["density"] == pytest.approx(4 / 8)
    assert statistics["positiveShare"] == pytest.approx(0.5)
    histogram = [(bar["rating"], bar["rows"]) for bar in statistics["ratingHistogram"]]
    assert histogram == [(1.0, 1), (2.0, 1), (4.0, 1), (5.0, 1)]
    assert statistics["topItems"][0] == {"itemId": "i1", "title": "One", "trainRows": 2}
    assert statistics["timeRange"] == ["1970-01-01T00:00:50+00:00", "1970-01-01T00:05:00+00:00"]
    assert (statistics["coldUsers"], statistics["coldItems"]) == (0, 3)
    assert statistics["coldRows"] == {
        "validation": {"coldUser": 0, "coldItem": 1},
        "test": {"coldUser": 0, "coldItem": 1},
    }


def test_source_digests_follow_the_bytes(run_dataset: RunDataset, tmp_path: Path) -> None:
    def digests(extra: str) -> dict[str, str]:
        path = tmp_path / "r.csv"
        path.write_text(f"user_id,item_id,rating,timestamp\nu,i,5,1\n{extra}")
        return dict(run_dataset(path).result.source_digests)

    assert digests("") == digests("")
    assert digests("")["ratings"] != digests("v,i,5,1\n")["ratings"]
    assert digests("")["items"] == digests("v,i,5,1\n")["items"]
