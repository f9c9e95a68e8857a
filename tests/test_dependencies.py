# SPDX-License-Identifier: Apache-2.0
"""Every third-party package that a component imports is declared in pyproject.toml, in an extra of that component."""

from __future__ import annotations

import ast
import importlib.metadata
import re
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ENGINE = "inference/thinkrec_inference/engine"
COMPONENTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "crds": ((), ("crds",)),
    "operator": (("operator",), ("operator",)),
    "local driver": (("operator", "local"), ("operator/thinkrec_operator/local",)),
    "trainer": (("trainer",), ("trainer", ENGINE)),
    "inference": (("inference",), ("inference",)),
}
"""Name -> the extras that install it (the base comes with all), and its folders."""
OWN_COMPONENTS = (ROOT / "operator/thinkrec_operator/local",)
"""Folders inside of a component that need more than it: its own imports are checked without them."""
PROVIDED = {"triton_python_backend_utils"}
"""Modules that a Triton server puts into its Python models; no index has them."""

Declared = Mapping[str, Sequence[str]]


def normal(name: str) -> str:
    """Return a distribution's name as indexes compare it (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def distribution(requirement: str) -> str:
    """Return the name in front of extras, versions and markers."""
    found = re.match(r"[\w.-]+", requirement)
    assert found is not None, requirement
    return normal(found.group())


def declared() -> Declared:
    """Return extra -> requirements; the base is the extra ""."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return {"": project["dependencies"], **project["optional-dependencies"]}


def installed_by(extras: Iterable[str], known: Declared) -> set[str]:
    """Return the distributions that the extras name, extras of thinkrec itself followed."""
    found: set[str] = set()
    for requirement in (line for extra in extras for line in known[extra]):
        own = re.match(r"thinkrec\[([\w,]+)\]", requirement)
        found |= installed_by(own.group(1).split(","), known) if own else {distribution(requirement)}
    return found


def imported(tree: ast.AST) -> Iterator[str]:
    """Yield the top-level name of every absolute import, those inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            yield node.module.partition(".")[0]


def third_party(component: str) -> dict[str, str]:
    """Return module -> one file that imports it."""
    folders = [ROOT / folder for folder in COMPONENTS[component][1]]
    apart = [inner for inner in OWN_COMPONENTS if any(folder in inner.parents for folder in folders)]
    found: dict[str, str] = {}
    for path in sorted(path for folder in folders for path in folder.rglob("*.py")):
        if any(inner in path.parents for inner in apart):
            continue
        names = set(imported(ast.parse(path.read_text("utf-8")))) - sys.stdlib_module_names - PROVIDED
        found |= {name: str(path.relative_to(ROOT)) for name in names if not name.startswith("thinkrec_")}
    return found


def undeclared(component: str, known: Declared) -> list[str]:
    """Return a line for every import that no extra of the component answers for."""
    available = installed_by(["", *COMPONENTS[component][0]], known)
    owners = importlib.metadata.packages_distributions()
    return [
        f"{where} imports {module}"
        for module, where in sorted(third_party(component).items())
        if available.isdisjoint(map(normal, owners.get(module, [])))
    ]


@pytest.mark.parametrize("component", COMPONENTS)
def test_every_import_is_declared(component: str) -> None:
    assert undeclared(component, declared()) == []


@pytest.mark.parametrize(
    ("component", "extra", "missing", "module"),
    [
        ("trainer", "trainer", "rouge-score", "rouge_score"),
        ("trainer", "trainer", "scikit-learn", "sklearn"),
        ("trainer", "trainer", "botocore", "botocore"),
        ("crds", "", "pyyaml", "yaml"),
        ("local driver", "local", "psutil", "psutil"),
        ("inference", "inference", "tritonclient", "tritonclient"),
    ],
)
def test_an_import_without_its_declaration_is_found(component: str, extra: str, missing: str, module: str) -> None:
    known = declared()
    without = [line for line in known[extra] if distribution(line) != missing]
    assert len(without) == len(known[extra]) - 1
    found = undeclared(component, {**known, extra: without})
    assert [line.rpartition(" ")[2] for line in found] == [module]


def test_imports_inside_functions_count() -> None:
    tree = ast.parse("import a.b as c, d\nfrom . import e\nfrom f.g import h\ndef i():\n    import j\n")
    assert list(imported(tree)) == ["a", "d", "f", "j"]
