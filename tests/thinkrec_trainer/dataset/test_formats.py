# SPDX-License-Identifier: Apache-2.0
"""The same data in four formats give the same artifact; every way a file can be wrong has a defined outcome."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import polars as pl
import pytest

from thinkrec_crds.stages import Columns, ItemColumns
from thinkrec_trainer.errors import BadInput

Format = Literal["Parquet", "CSV", "JSONLines", "RecBole"]
RunDataset = Callable[..., Any]
FORMATS: tuple[Format, ...] = ("Parquet", "CSV", "JSONLines", "RecBole")
ROWS = [("u1", "i1", 5.0, 100), ("u1", "i2", 1.0, 200), ("u1", "i3", 4.0, 300), ("u2", "i1", 2.0, 50)]


def artifact(outcome: Any) -> dict[str, list[dict[str, Any]]]:
    return {name: outcome.table(name).to_dicts() for name in ("train", "validation", "test", "users", "items")}


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_gives_the_same_artifact(run_dataset: RunDataset, kind: Format) -> None:
    outcome = run_dataset(ROWS, kind=kind)
    assert artifact(outcome) == artifact(run_dataset(ROWS, kind="CSV"))
    assert outcome.counts["rows_kept"] == 4
    assert outcome.table("train").schema == {
        "user_index": pl.Int32,
        "item_index": pl.Int32,
        "rating": pl.Float32,
        "liked": pl.Boolean,
        "timestamp": pl.Int64,
        "position": pl.Int32,
    }


def test_indices_and_labels(run_dataset: RunDataset) -> None:
    """Worked by hand: u1 has one row in each split, u2 has a single row and trains only; 4 and 5 are liked."""
    rows = run_dataset(ROWS).rows().select("user_id", "item_id", "liked", "position", "split").rows()
    assert rows == [
        ("u1", "i1", True, 0, "train"),
        ("u1", "i2", False, 1, "validation"),
        ("u1", "i3", True, 2, "test"),
        ("u2", "i1", False, 0, "train"),
    ]


@pytest.mark.parametrize("item_kind", FORMATS)
def test_attribute_lists(run_dataset: RunDataset, tmp_path: Path, item_kind: Format) -> None:
    """Lists stay lists; text is split on | or comma, and RecBole's token_seq on spaces."""
    cells: dict[Format, Any] = {
        "Parquet": ["Drama", "Film noir"],
        "CSV": "Drama|Film noir",
        "JSONLines": ["Drama", "Film noir"],
        "RecBole": "Drama Film-noir",
    }
    expected = ["Drama", "Film-noir"] if item_kind == "RecBole" else ["Drama", "Film noir"]
    folder = tmp_path / "files"
    folder.mkdir()
    path = folder / ("x.item" if item_kind == "RecBole" else "x")
    write_items(path, item_kind, cells[item_kind])
    items = run_dataset(ROWS, path, item_kind=item_kind).table("items")
    assert items.filter(pl.col("item_id") == "i1")["attributes"].to_list() == [expected]


def write_items(path: Path, kind: Format, cell: Any) -> None:
    if kind == "Parquet":
        pl.DataFrame({"item_id": ["i1"], "title": ["One"], "genres": [cell]}).write_parquet(path)
    elif kind == "JSONLines":
        pl.DataFrame({"item_id": ["i1"], "title": ["One"], "genres": [cell]}).write_ndjson(path)
    elif kind == "CSV":
        path.write_text(f"item_id,title,genres\ni1,One,{cell}\n")
    else:
        path.write_text(f"item_id:token\ttitle:token_seq\tgenres:token_seq\ni1\tOne\t{cell}\n")


def test_recbole_folder_holds_both_files(run_dataset: RunDataset, tmp_path: Path) -> None:
    folder = tmp_path / "ml"
    folder.mkdir()
    (folder / "ml.inter").write_text("user_id:token\titem_id:token\trating:float\ttimestamp:float\n1\t7\t4\t10\n")
    (folder / "ml.item").write_text('item_id:token\tmovie_title:token_seq\n7\tToy "Story\n')
    (folder / "ml.user").write_text("user_id:token\n1\n")
    outcome = run_dataset(
        folder, folder, kind="RecBole", item_kind="RecBole", item_columns=ItemColumns(title="movie_title")
    )
    assert outcome.table("items")["title"].to_list() == ['Toy "Story']


def test_folder_of_parts_is_read_in_name_order(run_dataset: RunDataset, tmp_path: Path) -> None:
    folder = tmp_path / "parts"
    folder.mkdir()
    pl.DataFrame({"user_id": [1], "item_id": [1], "rating": [5], "timestamp": [1]}).write_parquet(folder / "b.parquet")
    pl.DataFrame({"user_id": [1], "item_id": [1], "rating": [2], "timestamp": [1]}).write_parquet(folder / "a.parquet")
    outcome = run_dataset(folder, kind="Parquet")
    assert outcome.rows()["rating"].to_list() == [5.0], "of equal rows the last one, in b.parquet, stays"
    assert outcome.counts["duplicates_dropped"] == 1


def test_folder_without_matching_files(run_dataset: RunDataset, tmp_path: Path) -> None:
    folder = tmp_path / "none"
    folder.mkdir()
    (folder / "readme.md").write_text("x")
    with pytest.raises(BadInput, match=r"no \.csv file for format CSV; it has \['readme\.md'\]"):
        run_dataset(folder, kind="CSV")


def test_two_recbole_files_need_a_choice(run_dataset: RunDataset, tmp_path: Path) -> None:
    folder = tmp_path / "two"
    folder.mkdir()
    for name in ("a.inter", "b.inter"):
        (folder / name).write_text("user_id:token\n")
    with pytest.raises(BadInput, match=r"several \.inter files.*name one file"):
        run_dataset(folder, kind="RecBole")


@pytest.mark.parametrize("kind", FORMATS)
def test_wrong_column_names_field_value_candidates_and_closest(run_dataset: RunDataset, kind: Format) -> None:
    with pytest.raises(BadInput) as caught:
        run_dataset(ROWS, kind=kind, columns=Columns(rating="Ratings", user="uid"))
    message = str(caught.value)
    assert "columns.rating: 'Ratings' (did you mean 'rating'?)" in message
    assert "columns.user: 'uid'" in message
    assert "Columns present: ['user_id', 'item_id', 'rating', 'timestamp']" in message


def test_wrong_item_column(run_dataset: RunDataset) -> None:
    with pytest.raises(BadInput, match=r"items: .*items\.columns\.title: 'name'.*Columns present"):
        run_dataset(ROWS, item_columns=ItemColumns(title="name"))


@pytest.mark.parametrize("content", [b"", b"user_id,item_id,rating,timestamp\n"])
def test_empty_file(run_dataset: RunDataset, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "r.csv").write_bytes(content)
    with pytest.raises(BadInput, match=r"is empty|has a header but no row"):
        run_dataset(tmp_path / "r.csv")


def test_missing_file(run_dataset: RunDataset, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="does not exist"):
        run_dataset(tmp_path / "none.csv")


def test_row_with_too_many_cells_is_a_clear_error(run_dataset: RunDataset, tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("user_id,item_id,rating,timestamp\nu,i,5,1,surplus\n")
    with pytest.raises(BadInput, match=r"r\.csv cannot be read as CSV: .*more fields"):
        run_dataset(tmp_path / "r.csv")


def test_not_parquet(run_dataset: RunDataset, tmp_path: Path) -> None:
    (tmp_path / "r.parquet").write_text("user_id,item_id\n")
    with pytest.raises(BadInput, match=r"r\.parquet cannot be read as Parquet"):
        run_dataset(tmp_path / "r.parquet", kind="Parquet")


def test_compressed_text(run_dataset: RunDataset, tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_bytes(b"\x1f\x8b\x08\x00rest")
    with pytest.raises(BadInput, match="gzip-compressed"):
        run_dataset(tmp_path / "r.csv")


def test_file_that_is_not_utf8_is_read_as_latin1(run_dataset: RunDataset, tmp_path: Path) -> None:
    (tmp_path / "i.item").write_bytes("item_id:token\ttitle:token_seq\ni1\tCyrano, le poète\n".encode("latin-1"))
    outcome = run_dataset(ROWS, tmp_path / "i.item", item_kind="RecBole", item_columns=ItemColumns())
    assert "Cyrano, le poète" in outcome.table("items")["title"].to_list()
    assert outcome.counts["latin1_files"] == 1


def test_utf8_with_byte_order_mark_and_windows_line_ends(run_dataset: RunDataset, tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_bytes("\ufeffuser_id,item_id,rating,timestamp\r\nü1,i1,5,1\r\n".encode())
    outcome = run_dataset(tmp_path / "r.csv")
    assert outcome.table("users")["user_id"].to_list() == ["ü1"]
    assert outcome.counts["latin1_files"] == 0


def test_broken_json_lines_are_counted(run_dataset: RunDataset, tmp_path: Path) -> None:
    lines = [
        '{"user_id": 1, "item_id": "i1", "rating": 4.5, "timestamp": 10}',
        "not json",
        '["a", "list"]',
        "",
        '{"user_id": 2, "item_id": "i2", "rating": "3", "timestamp": "11", "more": {"a": 1}}',
        '{"user_id": 3, "rating": 3, "timestamp": 12}',
    ]
    (tmp_path / "r.jsonl").write_text("\n".join(lines))
    counts = run_dataset(tmp_path / "r.jsonl", kind="JSONLines").counts
    found = {name: counts[name] for name in ("rows_read", "rows_kept", "malformed_lines", "missing_ids")}
    assert found == {"rows_read": 5, "rows_kept": 2, "malformed_lines": 2, "missing_ids": 1}


def test_json_column_name_with_quote_and_dot(run_dataset: RunDataset, tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text('{"user\'s.id": "u", "item_id": "i1", "rating": 5, "timestamp": 1}\n')
    outcome = run_dataset(tmp_path / "r.jsonl", kind="JSONLines", columns=Columns(user="user's.id"))
    assert outcome.table("users")["user_id"].to_list() == ["u"]


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (1_600_000_000, 1_600_000_000),
        (1_600_000_000_123, 1_600_000_000),
        (1_600_000_000_123_456, 1_600_000_000),
        (1_600_000_000_123_456_789, 1_600_000_000),
        (1_600_000_000.9, 1_600_000_000),
        (-5, -5),
        ("2020-09-13T12:26:40Z", 1_600_000_000),
        ("2020-09-13T14:26:40.5+02:00", 1_600_000_000),
        ("2020-09-13 12:26:40", 1_600_000_000),
        ("2020-09-13 12:26", 1_599_999_960),
        ("2020-09-13", 1_599_955_200),
    ],
)
def test_times_as_text(run_dataset: RunDataset, value: object, seconds: int) -> None:
    assert run_dataset([("u", "i1", 5, value)]).rows()["timestamp"].to_list() == [seconds]


@pytest.mark.parametrize(
    "value",
    [
        datetime.datetime(2020, 9, 13, 12, 26, 40),
        datetime.datetime(2020, 9, 13, 14, 26, 40, tzinfo=datetime.timezone(datetime.timedelta(hours=2))),
        1_600_000_000,
        1_600_000_000_000.0,
    ],
)
def test_times_in_parquet(run_dataset: RunDataset, value: object) -> None:
    assert run_dataset([("u", "i1", 5, value)], kind="Parquet").rows()["timestamp"].to_list() == [1_600_000_000]


def test_day_in_parquet(run_dataset: RunDataset) -> None:
    outcome = run_dataset([("u", "i1", 5, datetime.date(2020, 9, 13))], kind="Parquet")
    assert outcome.rows()["timestamp"].to_list() == [1_599_955_200]
