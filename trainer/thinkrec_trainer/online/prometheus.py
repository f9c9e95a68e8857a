# SPDX-License-Identifier: Apache-2.0
"""One value of a variant from Prometheus: an instant query of its HTTP API, bounded in time and size.

    POST <address>/api/v1/query   query=…&time=<end of the look>

It takes no proxy from the environment, sends no credentials and follows no redirect: the address in the manifest is all
that is ever contacted. Whatever goes wrong is told in a sentence; an analysis never fails because of it.
"""

from __future__ import annotations

import json
import math
import re
import time
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import httpx

from thinkrec_crds.analysis_spec import Prometheus

SECONDS = 10.0
"""For one answer, connection and all."""
ALL_SECONDS = 60.0
"""For all answers of a look: 32 slow queries of eight variants each would take longer than the time between looks."""
MOST_BYTES = 1_000_000
_SHOWN = 200
"""Characters of what somebody else says."""
_PLACES = re.compile(r"\{\{\s*(variant|model)\s*\}\}")
_UNSAFE = re.compile(r"[^A-Za-z0-9_.:/@ -]")


class NoValue(Exception):  # noqa: N818 - it is no failure of ours
    """There is none; the message says why."""


@dataclass(slots=True)
class Reader:
    """Asks for values as they were at one moment."""

    model: str
    at: datetime
    seconds: float = SECONDS
    deadline: float = field(default_factory=lambda: time.monotonic() + ALL_SECONDS)
    """On the monotonic clock."""
    silent: dict[str, str] = field(default_factory=dict)
    """Addresses that did not answer, and how: they are not asked again, or 32 metrics would wait for each variant."""

    def value(self, source: Prometheus, variant: str) -> float:
        """Return the value for a variant; raise NoValue where there is none."""
        if source.address in self.silent:
            raise NoValue(self.silent[source.address])
        if time.monotonic() > self.deadline:
            raise NoValue(f"not asked for: the queries before took more than {ALL_SECONDS:g} s together")
        query = filled(source.query, variant=variant, model=self.model)
        try:
            status, body = self._asked(source.address, query)
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:  # ValueError: no name of a host
            told = f"Prometheus at {source.address} did not answer ({_short(str(error) or type(error).__name__)})"
            self.silent[source.address] = told
            raise NoValue(told) from error
        return read(source.address, status, body)

    def _asked(self, address: str, query: str) -> tuple[int, bytes]:
        asked = {"query": query, "time": f"{self.at.timestamp():.3f}", "timeout": f"{self.seconds:g}s"}
        url, deadline, body = f"{address.rstrip('/')}/api/v1/query", time.monotonic() + self.seconds, bytearray()
        with (
            httpx.Client(timeout=self.seconds, trust_env=False, follow_redirects=False) as client,
            client.stream("POST", url, data=asked, headers={"accept-encoding": "identity"}) as answer,
        ):
            for piece in answer.iter_bytes(65_536):
                body += piece
                if len(body) > MOST_BYTES:
                    raise NoValue(f"Prometheus at {address} answers more than {MOST_BYTES} bytes; aggregate the query")
                if time.monotonic() > deadline:
                    raise httpx.ReadTimeout(f"no whole answer within {self.seconds:g} s")
            return answer.status_code, bytes(body)


def filled(query: str, *, variant: str, model: str) -> str:
    """Return the query with {{variant}} and {{model}} filled in, safe within a quoted string of PromQL."""
    values = {"variant": variant, "model": model}
    return _PLACES.sub(lambda found: quoted(values[found.group(1)]), query)


def quoted(text: str) -> str:
    r"""Return a text as the inside of a PromQL string in either kind of quotes: `\u0022` ends neither of them."""
    return _UNSAFE.sub(lambda found: _escape(ord(found.group())), text)


def read(address: str, status: int, body: bytes) -> float:
    """Return the one finite number that an answer holds; raise NoValue telling what else it holds."""
    try:
        answer = json.loads(body)
    except ValueError:
        answer = None
    if not isinstance(answer, dict) or answer.get("status") != "success":
        raise NoValue(f"Prometheus at {address} answers with {status}: {_reason(answer, status)}")
    samples = _samples(answer.get("data"))
    if len(samples) != 1:
        raise NoValue(f"the query yields {len(samples) or 'no'} series; it must yield one value")
    try:
        value = float(samples[0])
    except (TypeError, ValueError):
        raise NoValue(f"the query yields {_short(str(samples[0]))!r}, which is no number") from None
    if not math.isfinite(value):
        raise NoValue(f"the query yields {value}")
    return value


def _samples(data: Any) -> list[Any]:
    """Return the values of an instant vector or of a scalar; [] for anything else."""
    kind, result = (data.get("resultType"), data.get("result")) if isinstance(data, dict) else (None, None)
    if kind == "scalar":
        return [_last(result)]
    if kind == "vector" and isinstance(result, list):
        return [_last(sample.get("value")) if isinstance(sample, dict) else None for sample in result]
    return []


def _last(pair: Any) -> Any:
    """Return the value of [time, value]."""
    return pair[1] if isinstance(pair, list) and len(pair) == 2 else None


def _reason(answer: Any, status: int) -> str:
    if isinstance(answer, dict) and isinstance(answer.get("error"), str):
        return _short(answer["error"])
    return "a redirect, which is not followed" if 300 <= status < 400 else "no answer of its query API"


def _short(text: str) -> str:
    """Return what somebody else says on one line, not too long."""
    line = " ".join(text.split())
    return line if len(line) <= _SHOWN else f"{line[: _SHOWN - 1]}…"


def _escape(code: int) -> str:
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
