# SPDX-License-Identifier: Apache-2.0
"""A serving bundle in memory, verified: every file that its manifest names, every shape that its index states."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import polars
import pydantic
import torch
from safetensors.torch import load_file

from thinkrec_crds.artifact import MANIFEST_NAME, ArtifactManifest
from thinkrec_crds.bundle import GOLDEN_NAME, INDEX_NAME, BundleIndex, GoldenFile
from thinkrec_crds.contract import Contract
from thinkrec_crds.prompt import ItemText
from thinkrec_inference.engine.base_model import BaseModel
from thinkrec_inference.engine.collaborative import COLLABORATIVE_NAME, Collaborative
from thinkrec_inference.engine.digests import file_sha256
from thinkrec_inference.engine.errors import BundleError
from thinkrec_inference.engine.projector import PROJECTOR_NAME, Projector
from thinkrec_inference.engine.tokens import History

GATE_NAME = "gate.safetensors"
ITEMS_NAME = "items.parquet"
USERS_NAME = "users.parquet"
_Message = TypeVar("_Message", bound=Contract)


@dataclass(frozen=True, slots=True)
class User:
    """One user of the bundle."""

    index: int
    group: int | None
    """None for a user without interactions in the train split: their CF vector means nothing."""
    history: History
    seen: tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Users:
    """All users, one table row each; a row becomes a `User` when asked for."""

    table: polars.DataFrame
    rows: Mapping[str, int]

    def get(self, user_id: str) -> User | None:
        """Return the user, or None for an unknown id."""
        row = self.rows.get(user_id)
        if row is None:
            return None
        values = self.table.row(row, named=True)
        group = values["group"]
        return User(
            index=values["user_index"],
            group=None if group is None or group < 0 else group,
            history=tuple(zip(values["history_items"], values["history_likes"], strict=True)),
            seen=tuple(values["seen_items"]),
        )


@dataclass(frozen=True, slots=True, eq=False)
class GateTensors:
    """`gate.safetensors`."""

    centroids: torch.Tensor
    """(K, d)"""
    mean: torch.Tensor
    """(d,)"""
    std: torch.Tensor
    """(d,)"""


@dataclass(frozen=True, slots=True, eq=False)
class Bundle:
    """Everything one serving generation needs beside the base model."""

    folder: Path
    generation: str
    """Digest of the manifest, or of the files where a bundle is not published yet."""
    index: BundleIndex
    items: tuple[ItemText, ...]
    item_ids: tuple[str, ...]
    item_rows: Mapping[str, int]
    users: Users
    collaborative: Collaborative
    projector: Projector
    gate: GateTensors
    golden: GoldenFile | None

    @property
    def adapters(self) -> tuple[Path, ...]:
        """Adapter folders in slot order: experts, and last the general one."""
        paths = (*(expert.path for expert in self.index.experts), self.index.general)
        return tuple(_inside(self.folder, path) for path in paths)


def load_bundle(folder: Path) -> Bundle:
    """Read and verify a bundle; raise BundleError naming the file and the remedy."""
    folder = Path(folder)
    index = _contract(folder, INDEX_NAME, BundleIndex)
    generation = _generation(folder)
    item_ids, items = _items(_file(folder, ITEMS_NAME))
    bundle = Bundle(
        folder=folder,
        generation=generation,
        index=index,
        items=items,
        item_ids=item_ids,
        item_rows={item: row for row, item in enumerate(item_ids)},
        users=_users(_file(folder, USERS_NAME)),
        collaborative=Collaborative.load(folder / COLLABORATIVE_NAME),
        projector=Projector.load(folder / PROJECTOR_NAME),
        gate=_gate(_file(folder, GATE_NAME)),
        golden=_contract(folder, GOLDEN_NAME, GoldenFile) if (folder / GOLDEN_NAME).is_file() else None,
    )
    _check_shapes(bundle)
    return bundle


def check_base(bundle: Bundle, base: BaseModel) -> None:
    """Raise BundleError unless this is the base model and tokenizer that the bundle was trained with."""
    pairs = (
        ("base model", bundle.index.base_model_digest, base.digest),
        ("tokenizer", bundle.index.tokenizer_digest, base.tokenizer_digest),
    )
    for what, expected, found in pairs:
        if expected != found:
            raise BundleError(
                f"{bundle.folder}: trained with the {what} {expected}, but {found} was loaded; serve it with "
                f"the model at {bundle.index.base_model.storage_uri}, or train again"
            )


def _generation(folder: Path) -> str:
    """Verify the files against the manifest, if there is one, and return the bundle's digest."""
    manifest = folder / MANIFEST_NAME
    if manifest.is_file():
        for entry in _contract(folder, MANIFEST_NAME, ArtifactManifest).files:
            path = _file(folder, entry.path)
            if path.stat().st_size != entry.size or file_sha256(path) != entry.sha256.removeprefix("sha256:"):
                raise BundleError(f"{path} differs from what {MANIFEST_NAME} names; fetch the bundle again")
        return f"sha256:{hashlib.sha256(manifest.read_bytes()).hexdigest()}"
    whole = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != GOLDEN_NAME):
        whole.update(f"{path.relative_to(folder).as_posix()} {file_sha256(path)}\n".encode())
    return f"sha256:{whole.hexdigest()}"


def _items(path: Path) -> tuple[tuple[str, ...], tuple[ItemText, ...]]:
    table = _table(path, ("item_index", "item_id", "title", "keywords")).sort("item_index")
    columns = table.to_dict(as_series=False)
    if columns["item_index"] != list(range(len(table))):
        raise BundleError(f"{path}: item_index must be 0 .. {len(table) - 1}, each once")
    rows = zip(columns["item_index"], columns["title"], columns["keywords"], strict=True)
    return tuple(columns["item_id"]), tuple(ItemText(i, title, tuple(words or ())) for i, title, words in rows)


def _users(path: Path) -> Users:
    names = ("user_index", "user_id", "group", "history_items", "history_likes", "seen_items")
    table = _table(path, names).rechunk()
    return Users(table, {user: row for row, user in enumerate(table["user_id"].to_list())})


def _table(path: Path, names: tuple[str, ...]) -> polars.DataFrame:
    table = polars.read_parquet(path)
    missing = [name for name in names if name not in table.columns]
    if missing:
        raise BundleError(f"{path}: columns {missing} are missing; it has {table.columns}")
    return table.select(list(names))


def _gate(path: Path) -> GateTensors:
    tensors = load_file(path)
    missing = [name for name in ("centroids", "mean", "std") if name not in tensors]
    if missing:
        raise BundleError(f"{path}: tensors {missing} are missing; it has {sorted(tensors)}")
    return GateTensors(tensors["centroids"], tensors["mean"], tensors["std"])


def _check_shapes(bundle: Bundle) -> None:
    """Compare what was read with what the index states."""
    index, collaborative = bundle.index, bundle.collaborative
    stated = {
        "items": (len(bundle.items), index.items),
        "users": (len(bundle.users.rows), index.users),
        "rows of item_vectors": (len(collaborative.item_vectors), index.items),
        "rows of user_vectors": (len(collaborative.user_vectors), index.users),
        "collaborative dimension": (collaborative.dimension, index.collaborative_dimension),
        "gate centroids": (tuple(bundle.gate.centroids.shape), (len(index.experts), index.collaborative_dimension)),
        "projector output": (bundle.projector.fc2.out_features, index.hidden_size),
    }
    wrong = [
        f"{what}: {found}, index says {expected}" for what, (found, expected) in stated.items() if found != expected
    ]
    if wrong:
        raise BundleError(f"{bundle.folder}: {'; '.join(wrong)}; publish the bundle again")


def _contract(folder: Path, name: str, kind: type[_Message]) -> _Message:
    path = _file(folder, name)
    try:
        return kind.from_json(path.read_bytes())
    except pydantic.ValidationError as error:
        raise BundleError(f"{path} is not a valid {kind.__name__}: {error}") from error


def _file(folder: Path, name: str) -> Path:
    path = _inside(folder, name)
    if not path.is_file():
        raise BundleError(f"{name} is missing from {folder}; fetch the bundle again")
    return path


def _inside(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise BundleError(f"{folder}: the path {name!r} leads out of the bundle")
    return path
