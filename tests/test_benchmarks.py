# SPDX-License-Identifier: Apache-2.0
"""Every benchmark starts as its own usage line says; what it measures is no test."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = sorted(ROOT.glob("benchmarks/*.py"))


@pytest.mark.parametrize("path", BENCHMARKS, ids=lambda path: path.stem)
def test_it_starts_and_says_how_it_is_used(path: Path) -> None:
    command = [sys.executable, str(path.relative_to(ROOT)), "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert f"python benchmarks/{path.name}" in done.stdout, "no example"
