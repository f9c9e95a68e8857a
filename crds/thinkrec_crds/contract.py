# SPDX-License-Identifier: Apache-2.0
"""The base class of everything that crosses an edge: custom resources, stage specs, manifests, messages."""

from __future__ import annotations

import json
from typing import Any, Self

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class Contract(BaseModel):
    """A frozen pydantic model that is camelCase on the wire and refuses fields it does not know."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        ser_json_inf_nan="null",
        protected_namespaces=(),
    )

    def __deepcopy__(self, memo: dict[int, Any] | None = None) -> Self:
        """Return the same value: nobody can change it, and pydantic copies a default each time that it fills one in."""
        return self

    def to_json(self, *, indent: int | None = None) -> str:
        """Return the wire form: camelCase keys, sorted, absent optional fields left out."""
        body = self.model_dump(mode="json", by_alias=True, exclude_none=True)
        separators = None if indent else (",", ":")
        return json.dumps(body, sort_keys=True, indent=indent, separators=separators, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Parse the wire form; raise ``pydantic.ValidationError`` naming every wrong field."""
        return cls.model_validate_json(text)
