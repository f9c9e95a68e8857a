# SPDX-License-Identifier: Apache-2.0
"""Every manifest that is shipped as an example is valid, by the types and by the generated schema."""

from __future__ import annotations

import re
from pathlib import Path

import jsonschema
import pytest
import yaml

from thinkrec_crds import group
from thinkrec_crds.schema import KINDS, structural_schema
from thinkrec_crds.validation import validate_documents

ROOT = Path(__file__).resolve().parents[2]


def shipped(path: Path) -> bool:
    """Return whether a file is an example and not what running one left in a hidden folder beside it."""
    return not any(part.startswith(".") for part in path.relative_to(ROOT).parts)


EXAMPLES = sorted(
    path
    for path in (ROOT / "examples").rglob("*.yaml")
    if shipped(path)
    and re.search(rf"^apiVersion: {re.escape(group.API_VERSION)}$", path.read_text("utf-8"), re.MULTILINE)
)


def test_there_are_examples() -> None:
    assert EXAMPLES


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: str(path.relative_to(ROOT)))
def test_an_example_is_valid(path: Path) -> None:
    text = path.read_text("utf-8")
    assert validate_documents(text, path.name) == []
    schemas = {kind.kind: structural_schema(kind.type) for kind in KINDS}
    for document in yaml.safe_load_all(text):
        if document and document.get("apiVersion") == group.API_VERSION:
            jsonschema.validate(document, schemas[document["kind"]])
