# SPDX-License-Identifier: Apache-2.0
"""Which expert's group a user is in, as control's bundle has it. It was so before the experiment, in all variants."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import polars as pl
import pydantic

from thinkrec_crds.bundle import INDEX_NAME, BundleIndex
from thinkrec_crds.stages import AnalyseParameters
from thinkrec_trainer.context import StageContext
from thinkrec_trainer.errors import BadInput
from thinkrec_trainer.online.users import GROUP
from thinkrec_trainer.simulation.names import owner_of

BUNDLE_ROLE = "bundle"
USERS_NAME = "users.parquet"
"""As `thinkrec_crds.bundle` describes it; the engine's module that names it too would bring torch into every look."""
NO_GROUP = "no group"
"""Users whom the bundle does not know, or has nothing learned of: the general adapter's."""

_MEMBER = "_member"


@dataclass(frozen=True, slots=True)
class Groups:
    """The groups of a bundle."""

    names: tuple[str, ...]
    """The experts', in their order, and last that of users without a group."""
    table: Path
    simulated: bool
    """Whether the users are persons with the taste of one of the bundle's users each."""

    def joined(self, users: pl.DataFrame) -> pl.DataFrame:
        """Return the users with the place of their group in `names`; the bundle's table streams by."""
        known = pl.scan_parquet(self.table).select("user_id", GROUP)
        member = owner_of(pl.col("user_id")) if self.simulated else pl.col("user_id")
        members = users.with_columns(member.alias(_MEMBER))
        mine = known.join(members.lazy(), left_on="user_id", right_on=_MEMBER, how="semi").collect(engine="streaming")
        experts = len(self.names) - 1
        place = pl.when(pl.col(GROUP).is_between(0, experts - 1)).then(GROUP).otherwise(experts)
        joined = members.join(mine, left_on=_MEMBER, right_on="user_id", how="left", maintain_order="left")
        return joined.with_columns(place.cast(pl.Int64).alias(GROUP)).drop(_MEMBER)


def groups_of(context: StageContext, given: AnalyseParameters) -> Groups | None:
    """Return the groups of the input `bundle`, None where there is none."""
    bundle = context.inputs.get(BUNDLE_ROLE)
    if bundle is None:
        return None
    try:
        index = BundleIndex.from_json(bundle.file(INDEX_NAME).read_bytes())
    except pydantic.ValidationError as error:
        raise BadInput(
            f"input {BUNDLE_ROLE!r}: {INDEX_NAME} is none of this version ({error.errors()[0]['msg']})"
        ) from error
    names = (*(expert.name for expert in index.experts), NO_GROUP)
    return Groups(names, bundle.file(USERS_NAME), simulated=given.events_uri is None)
