# SPDX-License-Identifier: Apache-2.0
"""The dataset stage stops between two of its steps when it is asked to, and leaves nothing behind."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from support.stages import make_context
from thinkrec_crds.stages import DatasetParameters, ItemSource
from thinkrec_trainer.checkpoint import Checkpoints
from thinkrec_trainer.dataset import run
from thinkrec_trainer.errors import Interrupted
from thinkrec_trainer.fetch import fetch_source

RATINGS = "user_id,item_id,rating,timestamp\nu1,i1,5,1\nu1,i2,1,2\nu1,i3,4,3\n"
ITEMS = "item_id,title\ni1,One\n"


@pytest.mark.parametrize("during", ["ratings.csv", "items.csv"])
def test_a_signal_while_a_source_is_fetched_ends_the_stage(tmp_path: Path, during: str) -> None:
    (tmp_path / "ratings.csv").write_text(RATINGS)
    (tmp_path / "items.csv").write_text(ITEMS)
    items = ItemSource(storage_uri=str(tmp_path / "items.csv"), format="CSV")
    ratings = str(tmp_path / "ratings.csv")
    context = make_context(
        DatasetParameters(storage_uri=ratings, revision="1", format="CSV", items=items), tmp_path / "stage"
    )
    checkpoint = context.checkpoint
    assert isinstance(checkpoint, Checkpoints)
    fetched = []

    def fetch(uri: str) -> Path:
        path = fetch_source(uri)
        fetched.append(path.name)
        if path.name == during:
            checkpoint.interrupt()
        return path

    with pytest.raises(Interrupted):
        run(replace(context, fetch=fetch))
    assert fetched[-1] == during
    assert list(context.output.iterdir()) == []
