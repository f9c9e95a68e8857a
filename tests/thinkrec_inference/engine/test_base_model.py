# SPDX-License-Identifier: Apache-2.0
"""Loading base models: what is refused, what the digest covers, and the one-time conversion of GGUF."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from thinkrec_inference.engine.base_model import BaseModel, answer_token, ensure_safetensors, load_base
from thinkrec_inference.engine.digests import file_sha256, model_digest
from thinkrec_inference.engine.errors import BaseModelError


@pytest.fixture
def copy(tiny_llama_dir: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_llama_dir, tmp_path / "model")


def test_the_answers_are_the_tokens_with_their_leading_space(base: BaseModel) -> None:
    assert base.tokenizer.convert_ids_to_tokens([base.yes_id, base.no_id]) == ["ĠYes", "ĠNo"]
    assert not base.model.training
    assert not any(parameter.requires_grad for parameter in base.model.parameters())


def test_an_answer_of_several_tokens_is_refused_with_them(base: BaseModel) -> None:
    with pytest.raises(BaseModelError, match="splits ' Yes, certainly' into 3 tokens"):
        answer_token(base.tokenizer, " Yes, certainly")


def test_the_digest_is_of_the_content_not_of_the_place(base: BaseModel, copy: Path) -> None:
    assert load_base(copy).digest == base.digest
    config = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(config | {"transformers_version": "0.0", "dtype": "bfloat16"}))
    assert model_digest(copy) == base.digest, "who wrote the file does not matter"
    (copy / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 0.5}))
    assert model_digest(copy) != base.digest, "what the model computes does"


def test_a_changed_weight_changes_the_digest_although_digests_are_remembered(base: BaseModel, copy: Path) -> None:
    path = copy / "model.safetensors"
    before = file_sha256(path)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    assert file_sha256(path) != before
    assert load_base(copy).digest != base.digest


def test_an_unwritable_cache_costs_only_time(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = file_sha256(copy / "config.json")
    blocked = tmp_path / "a-file"
    blocked.write_text("")
    monkeypatch.setenv("THINKREC_CACHE", str(blocked))
    assert file_sha256(copy / "config.json") == expected


def test_folders_without_one_clear_model_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match="does not exist"):
        ensure_safetensors(tmp_path / "nowhere")
    with pytest.raises(BaseModelError, match=r"neither \*\.safetensors nor \*\.gguf"):
        ensure_safetensors(tmp_path)
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).write_bytes(b"GGUF")
    with pytest.raises(BaseModelError, match="2 GGUF files"):
        ensure_safetensors(tmp_path)


def test_missing_configuration_and_tokenizer_are_named(copy: Path) -> None:
    (copy / "config.json").rename(copy / "old.json")
    with pytest.raises(BaseModelError, match=r"needs config\.json and \*\.safetensors"):
        model_digest(copy)


def test_the_dtype_is_the_one_asked_for(tiny_llama_dir: Path) -> None:
    assert load_base(tiny_llama_dir, dtype=torch.bfloat16).model.dtype == torch.bfloat16
