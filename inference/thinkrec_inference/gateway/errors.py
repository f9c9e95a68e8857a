# SPDX-License-Identifier: Apache-2.0
"""Every failure becomes one ErrorBody: what was wrong, what to do, in which field, what was received."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from thinkrec_inference.gateway.schemas import ErrorBody, FieldProblem
from thinkrec_inference.refusal import Refused

log = logging.getLogger(__name__)
RECEIVED_CHARACTERS = 200
_REMEDIES = {
    404: "The routes are listed at /docs.",
    405: "The methods of each route are listed at /docs.",
}


def install(app: FastAPI) -> None:
    """Register the handlers."""
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(Refused, _refused)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _defect)


def respond(status: int, body: ErrorBody, *, retry_after: int | None = None) -> Response:
    """Return the response of an error."""
    headers = {"Retry-After": str(retry_after)} if retry_after is not None else {}
    return Response(body.to_json(), status, headers, media_type="application/json")


def refuse_field(field: str, error: str, remedy: str, received: object, *, status: int = 422) -> FieldRefused:
    """Return the exception for one field that is well formed but cannot be served."""
    return FieldRefused(status, error, remedy, field=field, received=_cut(received))


class FieldRefused(Refused):
    """A refusal that names the field."""

    def __init__(self, status: int, error: str, remedy: str, *, field: str, received: str) -> None:
        super().__init__(status, error, remedy)
        self.field = field
        self.received = received


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, Refused)
    where = {"field": error.field, "received": error.received} if isinstance(error, FieldRefused) else {}
    remedy = error.detail.remedy or HTTPStatus(error.detail.status).phrase
    body = ErrorBody.model_validate({"error": error.detail.error, "remedy": remedy, **where})
    return respond(error.detail.status, body, retry_after=error.retry_after)


async def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return respond(*describe_invalid(error.errors()))


def describe_invalid(problems: Sequence[dict[str, Any]]) -> tuple[int, ErrorBody]:
    """Return status and body for pydantic's findings: 400 for text that is no JSON, 422 for wrong fields."""
    first = problems[0]
    if first["type"] == "json_invalid":
        where = f"at character {first['loc'][-1]}: {first.get('ctx', {}).get('error', first['msg'])}"
        return 400, ErrorBody(error=f"the body is not JSON {where}", remedy="Send one JSON object, see /docs.")
    fields = tuple(_problem(p) for p in problems if not _follows(p, problems))
    names = ", ".join(f.field for f in fields)
    return 422, ErrorBody(
        error=f"{fields[0].field}: {fields[0].error}"
        if len(fields) == 1
        else f"{len(fields)} fields are wrong: {names}",
        remedy="Correct the fields named here; /docs has an example of every body.",
        field=fields[0].field,
        received=fields[0].received,
        details=fields if len(fields) > 1 else None,
    )


def _follows(problem: dict[str, Any], problems: Sequence[dict[str, Any]]) -> bool:
    """Return whether a list is only "too short" because its elements were wrong, which is reported already."""
    place = tuple(problem["loc"])
    inside = (p for p in problems if p is not problem and tuple(p["loc"])[: len(place)] == place)
    return problem["type"] == "too_short" and any(inside)


def _problem(problem: dict[str, Any]) -> FieldProblem:
    path = [str(part) for part in problem["loc"] if part != "body"]
    return FieldProblem(field=".".join(path) or "body", error=problem["msg"], received=_cut(problem.get("input")))


async def _http(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    remedy = _REMEDIES.get(error.status_code, "See /docs.")
    return respond(error.status_code, ErrorBody(error=str(error.detail), remedy=remedy))


async def _defect(request: Request, error: Exception) -> Response:
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    body = ErrorBody(
        error="the gateway failed on this request", remedy="Report it with the time; its log has the cause."
    )
    return respond(500, body)


def _cut(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= RECEIVED_CHARACTERS else text[: RECEIVED_CHARACTERS - 1] + "…"
