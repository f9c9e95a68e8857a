# SPDX-License-Identifier: Apache-2.0
"""Writes what is generated from the types, CRDs and reference pages; with `--check` it only says what is stale."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from thinkrec_crds.reference import reference
from thinkrec_crds.schema import KINDS, render
from thinkrec_crds.troubleshooting import troubleshooting

ROOT = Path(__file__).resolve().parents[2]


def rendered_crds(root: Path = ROOT) -> dict[Path, str]:
    """Return the path and the text of every CRD file."""
    return {root / "crds" / f"{kind.singular}.yaml": render(kind) for kind in KINDS}


def rendered_docs(root: Path = ROOT) -> dict[Path, str]:
    """Return the path and the text of every generated page."""
    pages = {root / "docs" / "reference" / f"{kind.singular}.md": reference(kind) for kind in KINDS}
    return pages | {root / "docs" / "troubleshooting.md": troubleshooting()}


def stale_files(files: dict[Path, str]) -> dict[Path, str]:
    """Return those files that are missing or differ from the types."""
    return {path: text for path, text in files.items() if not path.exists() or path.read_text(encoding="utf-8") != text}


def main(arguments: Sequence[str] | None = None) -> int:
    """Write or check the files; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m thinkrec_crds", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 when a file is stale")
    parser.add_argument("--docs", action="store_true", help="the pages only, not the CRDs")
    parser.add_argument("--root", type=Path, default=ROOT, help="folder that holds crds/ and docs/")
    options = parser.parse_args(arguments)
    files = rendered_docs(options.root) | ({} if options.docs else rendered_crds(options.root))
    stale = stale_files(files)
    if options.check:
        for path in stale:
            sys.stderr.write(f"{path.relative_to(options.root)} is stale: run `python -m thinkrec_crds`\n")
        return 1 if stale else 0
    for path, text in stale.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        sys.stdout.write(f"wrote {path.relative_to(options.root)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
