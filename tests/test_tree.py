# SPDX-License-Identifier: Apache-2.0
"""Guards of the folder tree: a root `operator/` must never shadow Python's own `operator`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
COMPONENTS = {
    "crds": "thinkrec_crds",
    "operator": "thinkrec_operator",
    "trainer": "thinkrec_trainer",
    "inference": "thinkrec_inference",
}


def test_no_root_folder_is_a_package() -> None:
    folders = [p.parent.name for p in ROOT.glob("*/__init__.py")]
    assert folders == [], f"these folders must not hold an __init__.py: {folders}"


def test_operator_holds_no_module_of_its_own() -> None:
    assert list((ROOT / "operator").glob("*.py")) == []


def test_tests_are_no_packages_and_none_is_called_operator() -> None:
    assert list((ROOT / "tests").rglob("__init__.py")) == []
    assert [p for p in (ROOT / "tests").rglob("operator") if p.is_dir()] == []


@pytest.mark.parametrize("folder", [".", *COMPONENTS, "tests"])
def test_the_standard_library_is_not_shadowed(folder: str) -> None:
    code = "import operator, collections; print(operator.__file__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT / folder, capture_output=True, text=True, check=True)
    assert str(ROOT) not in done.stdout.replace(str(ROOT / ".venv"), "")


@pytest.mark.parametrize(("folder", "package"), COMPONENTS.items())
def test_each_component_has_one_package_with_a_map(folder: str, package: str) -> None:
    packages = [p.parent.name for p in (ROOT / folder).glob("*/__init__.py")]
    assert packages == [package]
    assert (ROOT / folder / package / "__init__.py").read_text().count("\n") >= 5, "say what belongs here"


def test_every_python_file_names_its_licence() -> None:
    files = [p for f in (*COMPONENTS, "tests", "scripts", "benchmarks") for p in (ROOT / f).rglob("*.py")]
    missing = [str(p.relative_to(ROOT)) for p in files if not p.read_text().startswith("# SPDX-License-Identifier")]
    assert missing == []


def test_ci_runs_what_the_readme_says() -> None:
    assert "exec make test" in (ROOT / ".ci" / "run").read_text()
    assert "make test" in (ROOT / "README.md").read_text()
    assert "make test" in (ROOT / ".github" / "workflows" / "ci.yaml").read_text()
