# SPDX-License-Identifier: Apache-2.0
"""The keywords stage: from attributes, from a teacher (cached per item), or none."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from thinkrec_crds.stages import KeywordsParameters
from thinkrec_trainer.context import LocalArtifact, StageContext, StageResult
from thinkrec_trainer.errors import BadInput
from thinkrec_trainer.keywords.asking import Item, Made, ask
from thinkrec_trainer.keywords.text import from_attributes
from thinkrec_trainer.shards import Shard, combined

FILE_NAME = "keywords.parquet"


def run(context: StageContext) -> StageResult:
    """Write keywords.parquet. Errors: BadInput (no teacher, refused), Temporary (teacher out of reach)."""
    return _write(context, _items(context))


def share(context: StageContext, shard: Shard) -> StageResult:
    """Write keywords.parquet of this pod's items; equal items fall to one pod, which asks for them once."""
    table = _items(context)
    mine = [shard.owns(digest) for digest in table["digest"]]
    return _write(context, table.filter(pl.Series(mine, dtype=pl.Boolean)))


def merge(context: StageContext, parts: Sequence[LocalArtifact]) -> StageResult:
    """Put the items of all pods back into the catalogue's order."""
    tables = [pl.read_parquet(part.file(FILE_NAME)) for part in parts]
    pl.concat(tables).sort("item_index").rechunk().write_parquet(context.output / FILE_NAME)
    return combined(parts)


def _items(context: StageContext) -> pl.DataFrame:
    table = pl.read_parquet(context.input("dataset").file("items.parquet"))
    return table.select("item_index", "digest", "title", "attributes")


def _write(context: StageContext, table: pl.DataFrame) -> StageResult:
    parameters = context.spec.parameters
    if not isinstance(parameters, KeywordsParameters):
        raise BadInput(f"stage keywords got parameters of stage {parameters.stage}")
    rows = table.select("digest", "title", "attributes").iter_rows()
    items = [Item(digest, title, tuple(attributes)) for digest, title, attributes in rows]
    made = ask(context, parameters, items) if parameters.source == "LLM" else _given(context, parameters, items)
    keywords = pl.Series([list(made.keywords[item.digest]) for item in items], dtype=pl.List(pl.String))
    out = table.select("item_index", "digest").with_columns(keywords=keywords)
    out.write_parquet(context.output / FILE_NAME)
    return StageResult(
        counts={"items": len(items), "empty": int((keywords.list.len() == 0).sum()), **made.counts},
        source_digests=made.source_digests,
        device=made.device,
        precision=made.precision,
    )


def _given(context: StageContext, parameters: KeywordsParameters, items: Sequence[Item]) -> Made:
    limit = parameters.max_keywords if parameters.source == "Attributes" else 0
    context.progress.update(len(items), len(items), f"keywords: {parameters.source}")
    free = {"cached": 0, "generated": 0, "prompt_tokens": 0, "completion_tokens": 0}
    return Made({item.digest: from_attributes(item.attributes, limit) for item in items}, free, {})
