# SPDX-License-Identifier: Apache-2.0
"""Fixtures that every package's tests share: real small data, the real small model, and a tiny random one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import example_data
from support.kube import control_plane, namespace, node_cluster, node_namespace, node_store

__all__ = ["control_plane", "namespace", "node_cluster", "node_namespace", "node_store"]

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "special_tokens_map.json")


@pytest.fixture(scope="session")
def movielens_dir() -> Path:
    """MovieLens-100K as RecBole atomic files."""
    return example_data.movielens()


@pytest.fixture(scope="session")
def smollm2_dir() -> Path:
    """The real SmolLM2-135M-Instruct as safetensors."""
    return example_data.smollm2()


@pytest.fixture(scope="session")
def tokenizer_dir(smollm2_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2's tokenizer alone."""
    folder = tmp_path_factory.mktemp("tokenizer")
    for name in TOKENIZER_FILES:
        if (smollm2_dir / name).is_file():
            shutil.copy2(smollm2_dir / name, folder / name)
    return folder


@pytest.fixture(scope="session")
def tiny_llama_dir(tokenizer_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random two-layer Llama (hidden 64) with SmolLM2's tokenizer: fast, and no answer can come from pretraining."""
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("tiny-llama")
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_dir)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder)
    for path in tokenizer_dir.iterdir():
        shutil.copy2(path, folder / path.name)
    return folder
