# SPDX-License-Identifier: Apache-2.0
"""The tables and vectors of a bundle, small enough to know every ranking by hand; no weights.

Item i of six has the vector e0 * (6 - i) and no bias, so a user whose vector is +e0 ranks them 0, 1, 2, 3, 4, 5 and one
whose vector is -e0 backwards. Seen: ann {0, 1}, bob {5}, cold {1, 2}, all {0 .. 5}; so item 1 is the most popular.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
from safetensors.numpy import save_file

from thinkrec_crds.bundle import BundleIndex, ExpertEntry
from thinkrec_crds.prompt import PromptTemplate
from thinkrec_crds.stages import BaseModelRef, LoraParameters

ITEMS = ("i0", "i1", "i2", "i3", "i4", "i5")
USERS = ("ann", "bob", "cold", "all")
SEEN = ([0, 1], [5], [1, 2], [0, 1, 2, 3, 4, 5])


def write_small_bundle(folder: Path) -> Path:
    """Write what the gateway reads of a bundle and return the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    user = np.array([[1, 0], [-1, 0], [0, 0], [1, 0]], dtype=np.float32)
    item = np.array([[6 - i, 1] for i in range(len(ITEMS))], dtype=np.float32)
    save_file(
        {
            "user_vectors": user,
            "item_vectors": item,
            "user_bias": np.zeros(len(USERS), dtype=np.float32),
            "item_bias": np.zeros(len(ITEMS), dtype=np.float32),
            "offset": np.zeros(1, dtype=np.float32),
        },
        folder / "collaborative.safetensors",
    )
    titles = [f"Title {i}" for i in range(len(ITEMS))]
    items = {"item_index": range(len(ITEMS)), "item_id": ITEMS, "title": titles, "keywords": [["word"]] * len(ITEMS)}
    pl.DataFrame({name: list(values) for name, values in items.items()}).write_parquet(folder / "items.parquet")
    users = {
        "user_index": list(range(len(USERS))),
        "user_id": list(USERS),
        "group": [0, 1, None, 0],
        "history_items": list(SEEN),
        "history_likes": [[True] * len(seen) for seen in SEEN],
        "seen_items": list(SEEN),
    }
    pl.DataFrame(users).write_parquet(folder / "users.parquet")
    (folder / "index.json").write_text(_index().to_json(indent=2))
    return folder


def _index() -> BundleIndex:
    experts = tuple(ExpertEntry(name=f"expert-{k}", path=f"adapters/expert-{k}", users=1) for k in range(2))
    return BundleIndex(
        base_model=BaseModelRef(storage_uri="file:///models/none"),
        base_model_digest="sha256:" + "0" * 64,
        tokenizer_digest="sha256:" + "0" * 64,
        hidden_size=64,
        collaborative_dimension=2,
        lora=LoraParameters(),
        experts=experts,
        temperature=0.1,
        hard_route_threshold=0.8,
        fusion="Exact",
        score="YesMinusNo",
        history_length=10,
        prompt=PromptTemplate(),
        users=len(USERS),
        items=len(ITEMS),
        inputs={},
    )
