# SPDX-License-Identifier: Apache-2.0
"""Digests of model files: every byte is hashed once, and again whenever a file's size, time or inode changes."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from thinkrec_inference.engine.errors import BaseModelError

_VOLATILE = ("_name_or_path", "transformers_version", "torch_dtype", "dtype", "architectures_version")
"""Configuration entries that say who wrote the file or how it was stored, not what the model computes."""


def cache_folder() -> Path:
    """Return the cache: $THINKREC_CACHE, else ~/.cache/thinkrec."""
    return Path(os.environ.get("THINKREC_CACHE") or "~/.cache/thinkrec").expanduser()


def file_sha256(path: Path) -> str:
    """Return the file's sha256 in hex; remembered in the cache by path, size, modification time and inode."""
    stat = path.stat()
    mark = f"{path.resolve()}\0{stat.st_size}\0{stat.st_mtime_ns}\0{stat.st_ino}"
    note = cache_folder() / "sha256" / hashlib.sha256(mark.encode()).hexdigest()
    if note.is_file():
        return note.read_text()
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    write_atomically(note, digest)
    return digest


def write_atomically(path: Path, text: str) -> None:
    """Write a small text file so that readers see all of it or nothing; a read-only cache is no error."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as stream:
            stream.write(text)
        os.replace(stream.name, path)
    except OSError:
        return  # the cache saves time only; without it the file is hashed again


def model_digest(folder: Path) -> str:
    """Return `sha256:...` over the weight files and the configuration that decides what they compute."""
    config = folder / "config.json"
    weights = sorted(folder.glob("*.safetensors"))
    if not config.is_file() or not weights:
        raise BaseModelError(f"{folder} needs config.json and *.safetensors; it has {sorted(os.listdir(folder))}")
    settings = {name: value for name, value in _json(config).items() if name not in _VOLATILE}
    whole = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
    for path in weights:
        whole.update(f"\n{path.name} {file_sha256(path)}".encode())
    return f"sha256:{whole.hexdigest()}"


def tokenizer_digest(folder: Path) -> str:
    """Return `sha256:...` of tokenizer.json."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        raise BaseModelError(f"{folder} has no tokenizer.json; save the model's fast tokenizer beside its weights")
    return f"sha256:{file_sha256(path)}"


def _json(path: Path) -> dict[str, Any]:
    loaded = json.loads(path.read_text())
    if not isinstance(loaded, dict):
        raise BaseModelError(f"{path} must hold a JSON object, not {type(loaded).__name__}")
    return loaded
