# SPDX-License-Identifier: Apache-2.0
"""Every way in which a bundle folder can be wrong has its own message."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
import torch
from safetensors.torch import load_file, save_file

from support.bundles import FLOAT32
from thinkrec_crds.artifact import ArtifactManifest, FileEntry, Lineage
from thinkrec_crds.stage_kinds import StageKind
from thinkrec_inference.engine.bundle import load_bundle
from thinkrec_inference.engine.engine import Engine
from thinkrec_inference.engine.errors import BundleError


@pytest.fixture
def folder(bundle_dir: Path, tmp_path: Path) -> Path:
    return shutil.copytree(bundle_dir, tmp_path / "bundle")


def publish(folder: Path) -> None:
    """Write a manifest over all files, as the store does."""
    files = tuple(
        FileEntry(
            path=path.relative_to(folder).as_posix(),
            sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
            size=path.stat().st_size,
        )
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    )
    lineage = Lineage(
        code_version="0",
        seed=0,
        created_time="2026-01-01T00:00:00Z",
        duration_seconds=1,
        device="cpu",
        precision="Float32",
    )
    manifest = ArtifactManifest(kind=StageKind.BUNDLE, key="0" * 40, semantics_version=1, files=files, lineage=lineage)
    (folder / "manifest.json").write_text(manifest.to_json())


def edit_index(folder: Path, **fields: object) -> None:
    path = folder / "index.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_a_published_bundle_loads_and_its_generation_is_the_manifests_digest(folder: Path) -> None:
    publish(folder)
    bundle = load_bundle(folder)
    digest = hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
    assert bundle.generation == f"sha256:{digest}"
    assert bundle.item_ids[:2] == ("i0", "i1")
    assert [path.name for path in bundle.adapters] == ["expert-0", "expert-1", "expert-2", "general"]
    user = bundle.users.get("u4")
    assert user is not None
    assert (user.index, user.group, len(user.history)) == (4, 1, 4)


def test_an_unpublished_bundle_changes_its_generation_with_its_content_but_not_with_golden(folder: Path) -> None:
    first = load_bundle(folder).generation
    (folder / "golden.json").unlink()
    assert load_bundle(folder).generation == first
    edit_index(folder, temperature=0.2)
    assert load_bundle(folder).generation != first


@pytest.mark.parametrize(
    "name",
    [
        "index.json",
        "projector.safetensors",
        "collaborative.safetensors",
        "gate.safetensors",
        "items.parquet",
        "users.parquet",
        "adapters/expert-1/adapter_model.safetensors",
        "adapters/general/adapter_config.json",
    ],
)
def test_a_missing_file_is_named(folder: Path, tiny_llama_dir: Path, name: str) -> None:
    (folder / name).unlink()
    with pytest.raises(BundleError, match=Path(name).name):
        Engine.load(folder, tiny_llama_dir, FLOAT32)


def test_a_file_that_differs_from_the_manifest_is_named(folder: Path) -> None:
    publish(folder)
    path = folder / "adapters" / "expert-1" / "adapter_model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(BundleError, match=r"expert-1/adapter_model\.safetensors differs.*fetch the bundle again"):
        load_bundle(folder)


@pytest.mark.parametrize("field", ["baseModelDigest", "tokenizerDigest"])
def test_another_base_model_or_tokenizer_is_refused_with_both_digests(
    folder: Path, tiny_llama_dir: Path, field: str
) -> None:
    other = f"sha256:{'0' * 64}"
    edit_index(folder, **{field: other})
    with pytest.raises(BundleError, match=rf"{other}, but sha256:[0-9a-f]{{64}} was loaded.*file:///models/tiny"):
        Engine.load(folder, tiny_llama_dir, FLOAT32)


def test_an_index_that_is_not_one_names_every_wrong_field(folder: Path) -> None:
    edit_index(folder, temperature="hot", surprise=1)
    with pytest.raises(BundleError, match=r"(?s)not a valid BundleIndex.*temperature.*surprise"):
        load_bundle(folder)


def test_a_path_that_leads_out_of_the_bundle_is_refused(folder: Path, tiny_llama_dir: Path) -> None:
    edit_index(folder, general="../../etc")
    with pytest.raises(BundleError, match="leads out of the bundle"):
        Engine.load(folder, tiny_llama_dir, FLOAT32)


def drop_an_item(folder: Path) -> None:
    path = folder / "items.parquet"
    pl.read_parquet(path).head(-1).write_parquet(path)


def drop_a_column(folder: Path) -> None:
    path = folder / "users.parquet"
    pl.read_parquet(path).drop("history_likes").write_parquet(path)


def repeat_an_item(folder: Path) -> None:
    path = folder / "items.parquet"
    table = pl.read_parquet(path)
    pl.concat([table.head(-1), table.head(1)]).write_parquet(path)


def shorten_a_bias(folder: Path) -> None:
    path = folder / "collaborative.safetensors"
    tensors = load_file(path)
    save_file({**tensors, "user_bias": tensors["user_bias"][:-1].clone()}, path)


def lose_the_offset(folder: Path) -> None:
    path = folder / "collaborative.safetensors"
    tensors = load_file(path)
    del tensors["offset"]
    save_file(tensors, path)


def widen_the_gate(folder: Path) -> None:
    path = folder / "gate.safetensors"
    save_file({**load_file(path), "centroids": torch.zeros(5, 8)}, path)


def lose_the_mean(folder: Path) -> None:
    path = folder / "projector.safetensors"
    tensors = load_file(path)
    del tensors["input_mean"]
    save_file(tensors, path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (drop_an_item, "items: 23, index says 24"),
        (drop_a_column, r"columns \['history_likes'\] are missing"),
        (repeat_an_item, r"item_index must be 0 \.\. 23, each once"),
        (shorten_a_bias, r"user_bias has shape \(11,\), expected \(12,\)"),
        (lose_the_offset, r"tensors \['offset'\] are missing"),
        (widen_the_gate, r"gate centroids: \(5, 8\), index says \(3, 8\)"),
        (lose_the_mean, r"tensors \['input_mean'\] are missing"),
    ],
)
def test_damage_is_described(folder: Path, damage: Callable[[Path], None], message: str) -> None:
    damage(folder)
    with pytest.raises(BundleError, match=message):
        load_bundle(folder)
