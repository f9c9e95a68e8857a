# SPDX-License-Identifier: Apache-2.0
"""Writes the CRD files beside the package; with `--check` it only says whether they are stale."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from thinkrec_crds.schema import KINDS, render

DIRECTORY = Path(__file__).resolve().parent.parent


def rendered_files(directory: Path = DIRECTORY) -> dict[Path, str]:
    """Return the path and the text of every generated file."""
    return {directory / f"{kind.singular}.yaml": render(kind) for kind in KINDS}


def stale_files(directory: Path = DIRECTORY) -> list[Path]:
    """Return the generated files that are missing or differ from the types."""
    files = rendered_files(directory)
    return [path for path, text in files.items() if not path.exists() or path.read_text(encoding="utf-8") != text]


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check the files; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m thinkrec_crds", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a file is stale")
    parser.add_argument("--directory", type=Path, default=DIRECTORY, help="folder of the CRD files")
    options = parser.parse_args(arguments)
    stale = stale_files(options.directory)
    if options.check:
        for path in stale:
            sys.stderr.write(f"{path.name} is stale: run `python -m thinkrec_crds`\n")
        return 1 if stale else 0
    for path in stale:
        path.write_text(rendered_files(options.directory)[path], encoding="utf-8")
        sys.stdout.write(f"wrote {path.name}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
