# SPDX-License-Identifier: Apache-2.0
"""Field types shared by both kinds: bounded strings, numbers without floats, lists with a declared merge type."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainSerializer,
    StringConstraints,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

from thinkrec_crds.rules import ApiType

INT32_MAX = 2**31 - 1
INT53_MAX = 2**53 - 1
"""Greatest bound of a 64-bit field: the apiserver keeps bounds as floating-point numbers."""
DUPLICATE_ERROR = "duplicate"
"""pydantic error type of a repeated element in a set or of a repeated key in a map list."""
QUANTITY_ERROR = "quantity"
"""pydantic error type of a value that is no Kubernetes quantity."""

_FILE_URI = r"file:///[^/\x00-\x20].*|file:[^/\x00-\x20].*"
_S3_URI = r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/[^\x00-\x20]+"
_HF_URI = r"hf://[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*"
_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"

Int32 = Annotated[int, Field(strict=True)]
"""A whole number; text and fractions are refused, as the apiserver does."""
Flag = Annotated[bool, Field(strict=True)]

DataUri = Annotated[str, StringConstraints(max_length=1024, pattern=rf"^({_S3_URI}|{_FILE_URI})$")]
"""``s3://bucket/key``, ``file:///absolute`` or ``file:relative/path`` (relative to the manifest, laptop only)."""
ModelUri = Annotated[str, StringConstraints(max_length=1024, pattern=rf"^({_S3_URI}|{_HF_URI}|{_FILE_URI})$")]
"""A ``DataUri``, or ``hf://organisation/name`` on a model hub."""
HttpUrl = Annotated[str, StringConstraints(max_length=1024, pattern=r"^https?://[!-.0-?A-~]+(/[!-?A-~]*)?$")]
"""An address without credentials in it: visible ASCII but @."""

ResourceName = Annotated[str, StringConstraints(min_length=1, max_length=52, pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$")]
"""Name of one of our own objects: short enough that names of children can be built from it."""
LabelName = Annotated[str, StringConstraints(min_length=1, max_length=63, pattern=rf"^{_LABEL}$")]
"""A DNS label: lower-case letters, digits and dashes."""
ObjectName = Annotated[str, StringConstraints(min_length=1, max_length=253, pattern=rf"^{_LABEL}(\.{_LABEL})*$")]
"""The name of another object in the same namespace."""
Revision = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9][A-Za-z0-9._+/:-]*$")]
"""An opaque version: commit, tag, date or digest."""
ColumnName = Annotated[str, StringConstraints(min_length=1, max_length=128)]
ImageName = Annotated[str, StringConstraints(min_length=1, max_length=512, pattern=r"^[!-~]+$")]
"""Visible ASCII: the apiserver's regular expressions and pydantic's differ in what else is white space."""
ShortText = Annotated[str, StringConstraints(min_length=1, max_length=256)]
LongText = Annotated[str, StringConstraints(max_length=4096)]

_MANTISSA = r"([0-9]{1,9}(\.[0-9]{1,9})?)"
_POSITIVE_MANTISSA = r"([1-9][0-9]{0,8}(\.[0-9]{1,9})?|0\.[0-9]{0,8}[1-9][0-9]{0,8})"
_EXPONENT = r"([eE]-?[0-9]{1,2})?"

DecimalText = Annotated[str, StringConstraints(max_length=32, pattern=rf"^-?{_MANTISSA}{_EXPONENT}$")]
"""A decimal number written as text, for example "0.62" (the API has no floating-point fields)."""
PositiveDecimal = Annotated[str, StringConstraints(max_length=32, pattern=rf"^{_POSITIVE_MANTISSA}{_EXPONENT}$")]
"""A decimal number above zero written as text, for example "0.0001" or "1e-4"."""
Fraction = Annotated[str, StringConstraints(max_length=16, pattern=r"^(0(\.[0-9]{1,9})?|1(\.0{1,9})?)$")]
"""A decimal number from "0" to "1" written as text."""
OpenFraction = Annotated[str, StringConstraints(max_length=16, pattern=r"^0\.[0-9]{0,8}[1-9][0-9]{0,8}$")]
"""A decimal number above "0" and below "1" written as text."""
MetricName = Annotated[str, StringConstraints(max_length=16, pattern=r"^(AUC|UAUC|(NDCG|MAP)@([1-9]|[1-4][0-9]|50))$")]
"""An offline metric: AUC, UAUC, NDCG@k or MAP@k with k from 1 to 50."""
EventName = Annotated[str, StringConstraints(max_length=64, pattern=r"^[A-Za-z][A-Za-z0-9._-]*$")]
"""What a user did, in the words of whoever sends it: click, purchase, watch.end."""
CronExpression = Annotated[
    str,
    StringConstraints(
        max_length=128,
        pattern=r"^(@(yearly|annually|monthly|weekly|daily|midnight|hourly)"
        r"|[0-9*,/-]+ +[0-9*,/-]+ +[0-9*,/?-]+ +[0-9A-Za-z*,/-]+ +[0-9A-Za-z*,/?-]+)$",
    ),
]
"""Minute, hour, day of month, month, day of week; or @daily and its like."""
TimeZone = Annotated[str, StringConstraints(max_length=64, pattern=r"^[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+){0,2}$")]
"""A name of the IANA time zone database, for example Europe/Berlin."""


def _pattern(alias: Any) -> str:
    """Return the pattern of a text type above."""
    return next(str(item.pattern) for item in alias.__metadata__ if isinstance(item, StringConstraints))


PATTERN_REMEDIES: Final[Mapping[str, str]] = MappingProxyType(
    {
        _pattern(ResourceName): "must begin with a letter and use only lower-case letters, digits and dashes",
        _pattern(DataUri): "must be s3://bucket/key, file:///absolute/path or file:relative/path",
        _pattern(ModelUri): "must be s3://bucket/key, hf://organisation/name, file:///absolute or file:relative/path",
        _pattern(HttpUrl): "must be an http:// or https:// address without credentials in it",
        _pattern(LabelName): "must use only lower-case letters, digits and dashes, with no dash at either end",
        _pattern(ObjectName): "must be a Kubernetes object name: lower-case letters, digits, dashes and dots",
        _pattern(Revision): "must start with a letter or digit and have no spaces",
        _pattern(ImageName): "must be a container image without spaces, for example registry/name:tag",
        _pattern(DecimalText): 'must be a decimal number in quotes, for example "0.62"',
        _pattern(PositiveDecimal): 'must be a decimal number above zero in quotes, for example "0.0001" or "1e-4"',
        _pattern(Fraction): 'must be a decimal number from "0" to "1" in quotes, for example "0.05"',
        _pattern(OpenFraction): 'must be a decimal number above "0" and below "1" in quotes, for example "0.05"',
        _pattern(MetricName): "must be AUC, UAUC, NDCG@k or MAP@k with k from 1 to 50, for example NDCG@5",
        _pattern(EventName): "must begin with a letter and use only letters, digits, dots, dashes and underscores",
        _pattern(CronExpression): 'must be five cron fields or @daily and its like, for example "0 3 * * 1"',
        _pattern(TimeZone): "must be an IANA time zone, for example Europe/Berlin",
    }
)
"""What to say when a text does not match its pattern."""


def as_float(text: str) -> float:
    """Return the number that a decimal text field stands for."""
    return float(text)


def as_decimal(value: float) -> str:
    """Return a number as the decimal text of a status: six digits at most, no trailing zeros."""
    return f"{value:.6f}".rstrip("0").rstrip(".")


def as_optional_decimal(value: float | None) -> str | None:
    """Return the same, or None for a number that is absent or not finite."""
    return as_decimal(value) if value is not None and math.isfinite(value) else None


def _whole_second(moment: datetime) -> datetime:
    return moment.astimezone(UTC).replace(microsecond=0)


def _rfc3339(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


Timestamp = Annotated[
    AwareDatetime,
    AfterValidator(_whole_second),
    PlainSerializer(_rfc3339, return_type=str, when_used="json"),
]
"""A moment in UTC with a resolution of one second, as metav1.Time."""


@dataclass(frozen=True, slots=True)
class ListType:
    """Declare how a list merges under server-side apply, and refuse the duplicates which that forbids."""

    kind: Literal["atomic", "set", "map"]
    key: str = ""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Add the check for duplicates behind the list's own validation."""
        return core_schema.no_info_after_validator_function(self._without_duplicates, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        """Add the Kubernetes list type to the generated schema."""
        body = handler(schema)
        body["x-kubernetes-list-type"] = self.kind
        if self.key:
            body["x-kubernetes-list-map-keys"] = [self.key]
        return body

    def _without_duplicates(self, items: tuple[Any, ...]) -> tuple[Any, ...]:
        if self.kind == "atomic":
            return items
        names = [getattr(item, self.key) if self.key else item for item in items]
        repeated = sorted({str(name) for name in names if names.count(name) > 1})
        if repeated:
            sentence = f"every {self.key or 'element'} must be unique; repeated: {', '.join(repeated)}"
            raise PydanticCustomError(DUPLICATE_ERROR, "{sentence}", {"sentence": sentence})
        return items


ATOMIC = ListType("atomic")
SET = ListType("set")
BY_NAME = ListType("map", key="name")
BY_METRIC = ListType("map", key="metric")
BY_TYPE = ListType("map", key="type")

_KEY_LENGTH: Final = 256
_BOUNDED_KEYS: Final[dict[str, Any]] = {
    "x-kubernetes-validations": [
        {
            "rule": f"self.all(key, key.size() >= 1 && key.size() <= {_KEY_LENGTH})",
            "message": f"every key must have from 1 to {_KEY_LENGTH} characters",
        }
    ]
}
"""A structural schema cannot bound the keys of a map; pydantic bounds them by `ShortText`."""

_QUANTITY = re.compile(r"^\+?[0-9]{1,19}(\.[0-9]{1,9})?(n|u|m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|[eE][+-]?[0-9]{1,2})?$")


_QUANTITY_REMEDY: Final = 'must be a whole number or a quantity in quotes, such as "500m" or "8Gi"'


class _QuantityType:
    """Validates a Kubernetes quantity as one value, so that an error names one path."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(cls._check)

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        rule = f"type(self) == string ? self.matches(r'{_QUANTITY.pattern}') : self >= 0"
        return {
            "x-kubernetes-int-or-string": True,
            "pattern": _QUANTITY.pattern,
            "maxLength": 64,
            "minimum": 0,
            "x-kubernetes-validations": [{"rule": rule, "message": _QUANTITY_REMEDY}],
        }

    @staticmethod
    def _check(value: Any) -> Any:
        whole = isinstance(value, int) and not isinstance(value, bool) and value >= 0
        if whole or (isinstance(value, str) and _QUANTITY.fullmatch(value)):
            return value
        raise PydanticCustomError(QUANTITY_ERROR, "{sentence}", {"sentence": _QUANTITY_REMEDY})


IntOrQuantity = Annotated[int | str, _QuantityType]
"""A Kubernetes quantity: 2, "500m", "8Gi"."""
Quantities = Annotated[dict[ShortText, IntOrQuantity], Field(max_length=16, json_schema_extra=_BOUNDED_KEYS)]
OpenObject = Annotated[dict[str, Any], Field(json_schema_extra={"x-kubernetes-preserve-unknown-fields": True})]
"""An object of another API, passed through; the apiserver checks it when the child is created."""
LabelMap = Annotated[
    dict[ShortText, Annotated[str, StringConstraints(max_length=256)]],
    Field(max_length=32, json_schema_extra=_BOUNDED_KEYS),
]


class SecretReference(ApiType):
    """Names a Secret in the same namespace; its content is handed to pods only, never read by the operator."""

    name: ObjectName = Field(description="Name of the Secret in the namespace of this object.")


class Resources(ApiType):
    """Compute resources of one container, shaped as in a Pod."""

    requests: Quantities = Field(
        default={}, description="Least amount reserved, by resource name, for example cpu: 2, memory: 8Gi."
    )
    limits: Quantities = Field(
        default={}, description="Most the container may use, by resource name; GPUs go here, as nvidia.com/gpu: 1."
    )


class Toleration(ApiType):
    """Lets pods run on tainted nodes, shaped as in a Pod."""

    key: ShortText | None = Field(default=None, description="Taint key; left out with operator Exists matches all.")
    operator: Literal["Exists", "Equal"] = Field(default="Equal", description="How `value` is compared.")
    value: Annotated[str, StringConstraints(max_length=63)] | None = Field(
        default=None, description="Taint value that is tolerated."
    )
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        default=None, description="Taint effect that is tolerated; left out matches every effect."
    )
    toleration_seconds: Int32 | None = Field(
        default=None, ge=0, le=INT32_MAX, description="Seconds to stay after a NoExecute taint appears."
    )


class PodTemplate(ApiType):
    """Merged over the pods that the operator writes, as by a strategic merge patch."""

    metadata: OpenObject | None = Field(default=None, description="Labels and annotations to add.")
    spec: OpenObject | None = Field(default=None, description="Any field of a PodSpec, for example volumes.")
