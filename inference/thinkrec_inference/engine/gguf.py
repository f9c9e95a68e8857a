# SPDX-License-Identifier: Apache-2.0
"""GGUF base models, converted to safetensors once: loading GGUF takes twenty times as long as loading safetensors."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from thinkrec_inference.engine.digests import cache_folder, file_sha256
from thinkrec_inference.engine.errors import BaseModelError


def ensure_safetensors(path: Path) -> Path:
    """Return a folder with safetensors: `path` itself, or the cached conversion of its single GGUF file.

    The conversion lies in the cache under the file's sha256 and appears there whole or not at all. Raises
    BaseModelError for a folder with neither kind of weights, or with several GGUF files.
    """
    path = Path(path)
    if not path.is_dir():
        raise BaseModelError(
            f"the base model folder {path} does not exist; give a local folder with safetensors or one GGUF"
        )
    if any(path.glob("*.safetensors")):
        return path
    source = _single_gguf(path)
    target = cache_folder() / "models" / file_sha256(source)
    if not target.is_dir():
        _convert(source, target)
    return target


def _single_gguf(folder: Path) -> Path:
    found = sorted(folder.glob("*.gguf"))
    if len(found) == 1:
        return found[0]
    what = "neither *.safetensors nor *.gguf" if not found else f"{len(found)} GGUF files"
    raise BaseModelError(f"{folder} has {what}; a base model is safetensors with config.json, or exactly one GGUF file")


def _convert(source: Path, target: Path) -> None:
    """Dequantise `source` to fp32 safetensors in `target`; concurrent conversions end with one whole folder."""
    target.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=".converting-", dir=target.parent))
    try:
        tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name, local_files_only=True)
        model = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, local_files_only=True)
        _forget_quantisation(model)
        model.save_pretrained(work)
        tokenizer.save_pretrained(work)
        _publish(work, target)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _publish(work: Path, target: Path) -> None:
    try:
        os.rename(work, target)
    except OSError:
        if not target.is_dir():
            raise
        # Another process finished the same conversion first: its folder holds the same bytes.


def _forget_quantisation(model: PreTrainedModel) -> None:
    """Drop the loader's marks; the weights are plain fp32 now, but `save_pretrained` refuses a model that has them."""
    for mark in ("is_quantized", "hf_quantizer", "quantization_method"):
        if hasattr(model, mark):
            delattr(model, mark) if mark in vars(model) else setattr(model, mark, None)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
