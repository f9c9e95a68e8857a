# SPDX-License-Identifier: Apache-2.0
"""Whatever the input, no row vanishes: rows read = rows kept + every counted reason. And the real data set."""

from __future__ import annotations

import csv
import tempfile
from pathlib import Path

import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from support.stages import make_context
from thinkrec_crds.stages import DatasetParameters, ItemColumns, ItemSource
from thinkrec_trainer.dataset import run
from thinkrec_trainer.dataset.interactions import REASONS
from thinkrec_trainer.errors import BadInput

ids = st.sampled_from(["", " ", "a", "b", "c", "ü", "0", "null", "NaN"])
numbers = st.one_of(
    st.integers(-2, 6).map(str),
    st.sampled_from(["", "x", "nan", "-inf", "1e400", "4,5", "0x1", "½", '"']),
    st.text(max_size=3),
)
rows = st.lists(st.tuples(ids, ids, numbers, numbers), min_size=1, max_size=12)


def run_on(folder: Path, cells: list[tuple[str, str, str, str]], max_users: int | None) -> tuple[dict[str, int], int]:
    """Run the stage on quoted CSV; return its counts and the rows that are really in its files."""
    with (folder / "r.csv").open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, quoting=csv.QUOTE_ALL)
        writer.writerows([("user_id", "item_id", "rating", "timestamp"), *cells])
    (folder / "i.csv").write_text("item_id,title\na,A\n")
    items = ItemSource(storage_uri=str(folder / "i.csv"), format="CSV")
    parameters = DatasetParameters(
        storage_uri=str(folder / "r.csv"), revision="1", format="CSV", items=items, max_users=max_users
    )
    context = make_context(parameters, folder)
    counts = dict(run(context).counts)
    written = sum(pl.read_parquet(context.output / f"{n}.parquet").height for n in ("train", "validation", "test"))
    return counts, written


@settings(max_examples=60, deadline=None)
@given(rows, st.sampled_from([None, 1, 2]))
def test_no_row_is_lost(cells: list[tuple[str, str, str, str]], max_users: int | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        try:
            counts, written = run_on(Path(folder), cells, max_users)
        except BadInput as error:
            refusal = str(error)
            counts, written = {}, 0
    if not counts:
        assert f"none of {len(cells)} rows can be used" in refusal
        return
    assert counts["rows_read"] == len(cells)
    assert counts["rows_kept"] == written
    assert counts["rows_read"] == counts["rows_kept"] + sum(counts[reason] for reason in REASONS)


def test_movielens(movielens_dir: Path, tmp_path: Path) -> None:
    """MovieLens-100K as published: 100 000 ratings of 943 users on 1682 films, 55 375 of them four or five stars."""
    items = ItemSource(
        storage_uri=str(movielens_dir),
        format="RecBole",
        columns=ItemColumns(title="movie_title", attributes=("class",)),
    )
    parameters = DatasetParameters(storage_uri=str(movielens_dir), revision="1", format="RecBole", items=items)
    context = make_context(parameters, tmp_path)
    counts = run(context).counts
    assert (counts["rows_read"], counts["rows_kept"], counts["users"], counts["items"]) == (100_000, 100_000, 943, 1682)
    splits = [pl.read_parquet(context.output / f"{name}.parquet") for name in ("train", "validation", "test")]
    assert sum(int(part["liked"].sum()) for part in splits) == 55_375
    table = pl.read_parquet(context.output / "items.parquet")
    toy = table.filter(pl.col("item_id") == "1").row(0, named=True)
    assert toy["title"] == "Toy Story"
    assert toy["attributes"] == ["Animation", "Children's", "Comedy"]
