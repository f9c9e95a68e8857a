# SPDX-License-Identifier: Apache-2.0
"""Asks another variant's gateway over HTTP, and hands its answer on byte by byte."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import httpx
import pydantic

from thinkrec_crds.gateway_api import RecommendationView

ROUTED_HEADER = "x-thinkrec-routed"
"""On a forwarded request: it is assigned already, the receiver answers with its own model. A caller who sends it skips
experiments, and with them the exposures; it chooses no variant by that."""
DEADLINE_HEADER = "x-thinkrec-deadline-milliseconds"
"""On a forwarded request: the receiver ends its reasons so early that its answer still arrives."""
CONNECT_SECONDS = 1.0
"""A pod that is gone without a word is noticed after this."""
TRANSFER_SECONDS = 0.2
"""Beyond the receiver's deadline, for its answer to arrive."""


class Unanswered(Exception):  # noqa: N818 - another variant may still answer
    """No answer came, or none that can be read."""


@dataclass(frozen=True, slots=True)
class Passed:
    """An answer of another gateway, as it came."""

    status: int
    content: bytes
    retry_after: str | None
    view: RecommendationView | None
    """What a client reads of it; None for an error."""

    @property
    def failed(self) -> bool:
        """Return whether the variant, not the caller, is to blame for an error."""
        return self.status >= 500 or self.status == 429


@dataclass(frozen=True, slots=True)
class Forwarder:
    """A pool of connections to other gateways."""

    http: httpx.AsyncClient

    @classmethod
    def open(cls) -> Forwarder:
        """Return a forwarder; close it inside the event loop that used it."""
        limits = httpx.Limits(max_connections=256, max_keepalive_connections=64)
        return cls(httpx.AsyncClient(limits=limits, trust_env=False))

    async def recommend(self, url: str, body: bytes, seconds: float) -> Passed:
        """Return the answer of the gateway at `url`; Unanswered when none came within `seconds` and a moment."""
        headers = {
            "content-type": "application/json",
            ROUTED_HEADER: "1",
            DEADLINE_HEADER: str(int(1000 * seconds)),
        }
        timeout = httpx.Timeout(seconds + TRANSFER_SECONDS, connect=min(CONNECT_SECONDS, seconds))
        try:
            answer = await self.http.post(
                f"{url.rstrip('/')}/v1/recommend", content=body, headers=headers, timeout=timeout
            )
        except httpx.HTTPError as error:
            raise Unanswered(f"{url}: {type(error).__name__} {error}".rstrip()) from error
        return Passed(answer.status_code, answer.content, answer.headers.get("retry-after"), _view(url, answer))

    async def close(self) -> None:
        """Close all connections."""
        await self.http.aclose()


def _view(url: str, answer: httpx.Response) -> RecommendationView | None:
    if answer.status_code != 200:
        return None
    try:
        return RecommendationView.from_json(answer.content)
    except pydantic.ValidationError as error:
        raise Unanswered(f"{url}: status 200 without a recommendation") from error


def given_deadline(headers: Mapping[str, str], own_seconds: float) -> float:
    """Return the seconds for a request: those of a forwarding gateway where they are fewer, else one's own."""
    told = headers.get(DEADLINE_HEADER, "") if ROUTED_HEADER in headers else ""
    return min(own_seconds, max(0.01, int(told) / 1000)) if told.isdecimal() and len(told) < 10 else own_seconds
