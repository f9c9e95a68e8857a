# SPDX-License-Identifier: Apache-2.0
"""The gateway's settings: the environment becomes one frozen object, and all errors are reported together.

The variable of a field is `THINKREC_` and its name in capitals: `max_candidates` is THINKREC_MAX_CANDIDATES.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

PREFIX = "THINKREC_"


class SettingsError(ValueError):
    """The environment is unusable; the message has one line per variable."""


class GatewaySettings(BaseModel):
    """What an operator may change; the defaults of the limits equal `spec.serving.limits` of a ThinkRecModel."""

    model_config = ConfigDict(frozen=True)

    bundle_dir: Path = Field(description="Folder of the bundle that the engine serves.")
    events_dir: Path = Field(description="Folder of the event log; segments stay in it until they are shipped.")
    events_max_bytes: int = Field(
        default=536_870_912, ge=1_048_576, description="Size of that folder; beyond it events get 503."
    )
    events_segment_bytes: int = Field(
        default=67_108_864, ge=65_536, le=1_073_741_824, description="A segment of events is closed beyond this size."
    )
    events_segment_seconds: float = Field(
        default=60.0, gt=0, le=86_400, description="And so long after its first line, for the shipper to take it."
    )
    traffic_file: Path | None = Field(
        default=None, description="File that tells how experiments share out users; without it there are none."
    )
    mirror_concurrency: int = Field(
        default=4, ge=0, le=256, description="Copies of requests that other variants work on at the same time, at most."
    )
    triton_grpc: str = Field(default="127.0.0.1:8001", pattern=r"^[^/\s]+:\d+$", description="host:port of Triton.")
    gateway_host: str = Field(default="127.0.0.1", description="Address to listen on; 0.0.0.0 in a container.")
    gateway_port: int = Field(default=8080, ge=0, le=65_535, description="TCP port; 0 takes a free one.")
    max_candidates: int = Field(default=200, ge=1, le=10_000, description="Candidates scored for one request.")
    deadline_milliseconds: int = Field(default=10_000, ge=10, le=600_000, description="When a request is given up.")
    max_body_bytes: int = Field(default=1_048_576, ge=1024, le=67_108_864, description="Size of a request body.")
    max_explanation_tokens: int = Field(default=96, ge=1, le=4096, description="Tokens of one reason.")
    retrieve_factor: int = Field(default=5, ge=1, le=100, description="Candidates retrieved per item asked for.")

    @property
    def deadline_seconds(self) -> float:
        """Return the deadline in seconds."""
        return self.deadline_milliseconds / 1000


def gateway_settings(environment: Mapping[str, str]) -> GatewaySettings:
    """Return the settings; raise SettingsError naming every wrong variable, its value and what would be right."""
    names = {name: PREFIX + name.upper() for name in GatewaySettings.model_fields}
    given = {name: environment[variable] for name, variable in names.items() if environment.get(variable)}
    try:
        return GatewaySettings.model_validate(given)
    except ValidationError as error:
        lines = [_line(names[str(e["loc"][0])], e["type"], e["msg"], e["input"]) for e in error.errors()]
        raise SettingsError("\n".join(["the gateway's environment is unusable:", *lines])) from error


def _line(variable: str, kind: str, message: str, value: object) -> str:
    about = GatewaySettings.model_fields[variable.removeprefix(PREFIX).lower()].description
    if kind == "missing":
        return f"  {variable} is not set: {about}"
    return f"  {variable}={value!r}: {message}. {about}"
