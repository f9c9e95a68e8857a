# SPDX-License-Identifier: Apache-2.0
"""The real thing at small size: engine process, Triton from its wheel, gateway, over a random two-layer Llama."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.bundles import FLOAT32, make_bundle
from thinkrec_inference.engine.engine import Engine
from thinkrec_inference.supervisor import Options, Stack


@pytest.fixture(scope="session")
def bundle(tiny_llama_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_bundle(tmp_path_factory.mktemp("serving") / "bundle", tiny_llama_dir)


@pytest.fixture(scope="session")
def engine(bundle: Path, tiny_llama_dir: Path) -> Engine:
    """The same engine in this process: what the served answers must equal."""
    return Engine.load(bundle, tiny_llama_dir, FLOAT32)


@pytest.fixture(scope="session")
def stack(bundle: Path, tiny_llama_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """All three processes, ready."""
    os.environ["OMP_NUM_THREADS"] = "1"
    options = Options(
        bundle=bundle,
        base_model=tiny_llama_dir,
        work_dir=tmp_path_factory.mktemp("stack"),
        engine_arguments=("--precision", "Float32", "--threads", "1"),
        startup_seconds=90,
    )
    stack = Stack.plan(options)
    try:
        stack.start()
        yield stack
    finally:
        stack.stop()
