# SPDX-License-Identifier: Apache-2.0
"""Stage `gate`: groups of users on standardised CF vectors, and the means by which the engine routes."""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import polars as pl
import torch
from safetensors.numpy import save_file

from thinkrec_crds.stages import GateParameters
from thinkrec_inference.engine.collaborative import COLLABORATIVE_NAME, Collaborative
from thinkrec_inference.engine.gate import route_many
from thinkrec_trainer.context import LocalArtifact, StageContext, StageResult
from thinkrec_trainer.errors import BadInput
from thinkrec_trainer.grouping import (
    WARD_LIMIT,
    Clusterer,
    Labels,
    Matrix,
    Standard,
    Typical,
    centroids,
    typical_items,
)
from thinkrec_trainer.interactions import Interactions, read_split

GATE_NAME = "gate.safetensors"
TYPICAL_ITEMS = 10


@dataclass(frozen=True, slots=True)
class Grouping:
    """The result before it is written."""

    users: Labels
    """(n,) indices of the warm users."""
    labels: Labels
    """(n,) their groups."""
    centroids: Matrix
    """(K, d) standardised."""
    standard: Standard
    silhouettes: dict[int, float]
    """K -> mean silhouette of every K that was tried."""

    @property
    def count(self) -> int:
        """K."""
        return len(self.centroids)


def run(context: StageContext) -> StageResult:
    """Group the warm users, write centroids, assignment and descriptions."""
    given = context.spec.parameters
    assert isinstance(given, GateParameters)
    train = read_split(context.input("dataset"), "train")
    encoder = Collaborative.load(context.input("collaborative").file(COLLABORATIVE_NAME))
    context.progress.update(0, 2, "clustering users")
    found = group_users(encoder, train, given, seed=context.spec.seed)
    context.progress.update(1, 2, f"{found.count} groups")
    _write(context, found, train)
    context.progress.update(2, 2)
    sizes = np.bincount(found.labels)
    silhouette = found.silhouettes.get(found.count, float("nan"))
    metrics = {"silhouette": silhouette, **_routing(encoder, found)}
    return StageResult(
        metrics={name: value for name, value in metrics.items() if not np.isnan(value)},
        counts={"groups": found.count, "users": len(found.users), "smallest_group": int(sizes.min())},
    )


def group_users(encoder: Collaborative, train: Interactions, given: GateParameters, *, seed: int) -> Grouping:
    """Cluster the users that have train rows.

    Raises:
        BadInput: too few such users for the number of groups asked for, or vectors that are all equal.
    """
    users = np.flatnonzero(train.warm_users())
    _require_users(len(users), given)
    raw = encoder.user_vectors.numpy()[users].astype(np.float64)
    try:
        standard = Standard.of(raw)
    except ValueError as error:
        raise BadInput(f"{error}; train the collaborative encoder longer or set spec.experts.count to 1") from error
    vectors = standard.apply(raw)
    ward = given.method == "Ward" or (given.method == "Auto" and len(users) <= WARD_LIMIT)
    clusterer = Clusterer(vectors, ward=ward, seed=seed)
    labels, silhouettes = _choose(clusterer, given, users=len(users))
    return Grouping(users, labels, centroids(vectors, labels), standard, silhouettes)


def _require_users(users: int, given: GateParameters) -> None:
    least = given.count if given.count is not None else given.min_count + 1
    if users < least:
        wanted = (
            f"spec.experts.count {given.count}" if given.count is not None else f"experts.auto.min {given.min_count}"
        )
        raise BadInput(
            f"{users} users have train rows, {wanted} needs at least {least}: ask for fewer experts or add data"
        )
    if given.count is None and given.max_count < given.min_count:
        raise BadInput(f"experts.auto.max {given.max_count} is below experts.auto.min {given.min_count}")
    if given.method == "Ward" and users > WARD_LIMIT:
        raise BadInput(f"gate method Ward takes up to {WARD_LIMIT} users, got {users}: use Auto or MiniBatchKMeans")


def _choose(clusterer: Clusterer, given: GateParameters, *, users: int) -> tuple[Labels, dict[int, float]]:
    """Return the labels of the fixed K, or of the K with the best silhouette (the smaller one on a tie)."""
    if given.count is not None:
        counts = [given.count]
    else:
        counts = list(range(given.min_count, min(given.max_count, users - 1) + 1))
    cuts = {count: clusterer.cut(count) for count in counts}
    short = [count for count, labels in cuts.items() if int(labels.max()) + 1 < count]
    if given.count in short:
        raise BadInput(
            f"only {int(cuts[counts[0]].max()) + 1} distinct groups exist, spec.experts.count is {given.count}"
        )
    whole = {count: labels for count, labels in cuts.items() if count not in short}
    if not whole:
        raise BadInput(f"the user vectors form fewer than {given.min_count} distinct groups: lower experts.auto.min")
    silhouettes = {count: clusterer.silhouette(labels) for count, labels in whole.items()}
    best = max(whole, key=lambda count: (-2.0 if np.isnan(silhouettes[count]) else silhouettes[count], -count))
    return whole[best], {count: value for count, value in silhouettes.items() if not np.isnan(value)}


def _routing(encoder: Collaborative, found: Grouping) -> dict[str, float]:
    """Return the share of users whose largest gate weight is their own group's, with the method's temperature."""
    routes = route_many(
        encoder.user_vectors[torch.from_numpy(found.users)],
        *(torch.from_numpy(part) for part in (found.centroids, found.standard.mean, found.standard.std)),
    )
    own = np.array([int(route.weights.argmax()) for route in routes]) == found.labels
    return {"routed_to_own_group": float(own.mean())}


def _write(context: StageContext, found: Grouping, train: Interactions) -> None:
    tensors = {"centroids": found.centroids, "mean": found.standard.mean, "std": found.standard.std}
    save_file({name: part.astype(np.float32) for name, part in tensors.items()}, context.output / GATE_NAME)
    pl.DataFrame({"user_index": found.users.astype(np.int32), "group": found.labels.astype(np.int32)}).write_parquet(
        context.output / "assignment.parquet"
    )
    groups = _describe(found, train, titles(context.input("dataset")))
    for name, body in (("groups.json", groups), ("silhouette.json", _silhouette_rows(found))):
        (context.output / name).write_text(json.dumps(body, ensure_ascii=False, indent=1), encoding="utf-8")


def _describe(found: Grouping, train: Interactions, names: list[str]) -> list[dict[str, object]]:
    group_of = np.full(train.user_count, -1, dtype=np.int64)
    group_of[found.users] = found.labels
    likes = (group_of[train.users[train.liked]], train.items[train.liked])
    typical = typical_items(*likes, group_count=found.count, item_count=train.item_count, top=TYPICAL_ITEMS)
    sizes = np.bincount(found.labels, minlength=found.count).tolist()
    return [
        {"group": group, "users": sizes[group], "typical_items": [_item(item, names) for item in typical[group]]}
        for group in range(found.count)
    ]


def _item(item: Typical, names: list[str]) -> dict[str, object]:
    return {"item_index": item.item_index, "title": names[item.item_index], "lift": round(item.lift, 4)}


def _silhouette_rows(found: Grouping) -> list[dict[str, float]]:
    return [{"groups": count, "silhouette": value} for count, value in sorted(found.silhouettes.items())]


def titles(dataset: LocalArtifact) -> list[str]:
    """Return the title of each item, by item index."""
    table = pl.read_parquet(dataset.file("items.parquet"), columns=["item_index", "title"]).sort("item_index")
    result: list[str] = table["title"].to_list()
    return result
