# SPDX-License-Identifier: Apache-2.0
"""What the operator process is configured with: environment variables, checked all at once at the start."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import TypeVar

from thinkrec_operator.observed import Settings

PREFIX = "THINKREC_"

_T = TypeVar("_T")
_DEFAULTS = Settings()
_LOG_LEVELS = ("debug", "info", "warning", "error")
_LOG_FORMATS = ("text", "json")


class ConfigError(ValueError):
    """One or more environment variables cannot be used; the message has a line for each."""


@dataclass(frozen=True, slots=True)
class OperatorConfig:
    """Settings of one operator process; each field is the variable `THINKREC_<FIELD>`."""

    namespaces: tuple[str, ...] = ()
    """Namespaces to watch, comma-separated; empty watches the whole cluster."""
    trainer_image: str = _DEFAULTS.trainer_image
    """Image of training Jobs whose manifest names none."""
    inference_image: str = _DEFAULTS.inference_image
    """Image of serving pods whose manifest names none."""
    progress_period_seconds: int = _DEFAULTS.progress_period_seconds
    """Least time between two looks at a running stage's progress."""
    resync_seconds: int = 600
    """Time between two own LISTs, which find what a watch missed."""
    workers: int = 8
    """Models reconciled at the same time."""
    health_port: int = 8081
    """Port of /healthz and /readyz; 0 serves none."""
    metrics_port: int = 8080
    """Port of /metrics; 0 serves none."""
    log_format: str = "text"
    """text or json."""
    log_level: str = "info"
    """debug, info, warning or error."""

    @property
    def settings(self) -> Settings:
        """Return the part that decisions see."""
        return Settings(
            trainer_image=self.trainer_image,
            inference_image=self.inference_image,
            progress_period_seconds=self.progress_period_seconds,
        )


def from_environment(environment: Mapping[str, str]) -> OperatorConfig:
    """Return the configuration; raise ConfigError naming every variable with its value and what it must be."""
    problems: list[str] = []
    readers: dict[str, Callable[[str], object]] = {
        "namespaces": _names,
        "trainer_image": str,
        "inference_image": str,
        "progress_period_seconds": _whole(1, 3600),
        "resync_seconds": _whole(5, 86_400),
        "workers": _whole(1, 256),
        "health_port": _whole(0, 65_535),
        "metrics_port": _whole(0, 65_535),
        "log_format": _one_of(_LOG_FORMATS),
        "log_level": _one_of(_LOG_LEVELS),
    }
    assert set(readers) == {field.name for field in fields(OperatorConfig)}, "every field has a reader"
    found = {
        name: value
        for name, read in readers.items()
        if (value := _value(environment, PREFIX + name.upper(), read, problems)) is not None
    }
    if problems:
        raise ConfigError("\n".join(problems))
    return OperatorConfig(**found)  # type: ignore[arg-type]  # each reader returns its field's type


def _value(environment: Mapping[str, str], variable: str, read: Callable[[str], _T], problems: list[str]) -> _T | None:
    text = environment.get(variable, "").strip()
    if not text:
        return None
    try:
        return read(text)
    except ValueError as error:
        problems.append(f"{variable} is {text!r}: {error}")
        return None


def _names(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name for part in text.split(",") if (name := part.strip())))


def _whole(least: int, most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        number = int(text) if text.isascii() and text.isdigit() else -1
        if not least <= number <= most:
            raise ValueError(f"it must be a whole number from {least} to {most}")
        return number

    return read


def _one_of(choices: tuple[str, ...]) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text.lower() not in choices:
            raise ValueError(f"it must be one of {', '.join(choices)}")
        return text.lower()

    return read
