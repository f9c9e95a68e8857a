# SPDX-License-Identifier: Apache-2.0
"""Keywords that were already paid for, by item digest, in `<storage>/.cache/keywords/<fingerprint>/` of the store.

Append-only parts of a few hundred items each: a killed run continues where it was, and a catalogue update pays for new
items only. The fingerprint covers how keywords are made; another way never reads these answers.
"""

from __future__ import annotations

import io
import logging
import uuid
from collections.abc import Mapping
from dataclasses import dataclass

import polars as pl

from thinkrec_trainer.store import Blobs

_log = logging.getLogger(__name__)
_SCHEMA = {"digest": pl.String(), "keywords": pl.List(pl.String)}


@dataclass(frozen=True, slots=True)
class KeywordCache:
    """The parts below `blobs`."""

    blobs: Blobs

    def read(self) -> dict[str, tuple[str, ...]]:
        """Return keywords by item digest; a damaged part is passed over with a warning (its items are made again)."""
        found: dict[str, tuple[str, ...]] = {}
        for blob in self.blobs.list():
            try:
                part = pl.read_parquet(io.BytesIO(self.blobs.read(blob.name) or b""), columns=list(_SCHEMA))
            except (pl.exceptions.PolarsError, OSError) as error:
                _log.warning("keyword cache part %s/%s is passed over: %s", self.blobs.uri, blob.name, error)
                continue
            found.update((digest, tuple(words)) for digest, words in part.iter_rows())
        return found

    def append(self, keywords: Mapping[str, tuple[str, ...]]) -> None:
        """Store new answers as one more part."""
        columns = {"digest": list(keywords), "keywords": [list(words) for words in keywords.values()]}
        buffer = io.BytesIO()
        pl.DataFrame(columns, schema=_SCHEMA).write_parquet(buffer)
        self.blobs.create(f"{uuid.uuid4().hex}.parquet", buffer.getvalue())
