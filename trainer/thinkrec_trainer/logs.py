# SPDX-License-Identifier: Apache-2.0
"""Logs as JSON lines on standard error. Values of secret environment variables are masked wherever they appear."""

from __future__ import annotations

import datetime
import json
import logging
import os
import re
import sys
import urllib.parse

MASK = "***"
_SECRET_NAME = re.compile(r"(SECRET|TOKEN|PASSWORD|API_KEY|ACCESS_KEY)", re.IGNORECASE)
_SHORTEST_SECRET = 6
"""Shorter values would mask ordinary words."""


def secret_values(environment: dict[str, str] | None = None) -> tuple[str, ...]:
    """Return the values of variables whose name says that they are secret, in every form of writing, longest first."""
    found = os.environ if environment is None else environment
    values = {v for k, v in found.items() if _SECRET_NAME.search(k) and len(v) >= _SHORTEST_SECRET}
    return tuple(sorted((form for value in values for form in _forms(value)), key=lambda form: (-len(form), form)))


def _forms(secret: str) -> set[str]:
    """Return a value as it is, and as JSON, `repr` and an address write it: quotes and backslashes differ there."""
    as_json = {json.dumps(secret, ensure_ascii=ascii_only)[1:-1] for ascii_only in (True, False)}
    return {secret, repr(secret)[1:-1], urllib.parse.quote(secret, safe=""), *as_json}


def masked(text: str, secrets: tuple[str, ...]) -> str:
    """Return `text` with every secret replaced."""
    for secret in secrets:
        text = text.replace(secret, MASK)
    return text


class JsonFormatter(logging.Formatter):
    """One JSON object per record: time, level, logger, message, traceback.

    The texts are masked before they become JSON, which would write a quote or a backslash in a secret differently.
    """

    def __init__(self, secrets: tuple[str, ...]) -> None:
        super().__init__()
        self._secrets = secrets

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        body = {
            "time": datetime.datetime.fromtimestamp(record.created, datetime.UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": masked(record.getMessage(), self._secrets),
        }
        if record.exc_info:
            body["traceback"] = masked(self.formatException(record.exc_info), self._secrets)
        return json.dumps(body, ensure_ascii=False)


def configure_logs(level: int = logging.INFO) -> None:
    """Send every log of this process to standard error; chatty libraries only from warnings on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(secret_values()))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # bars would break the lines; progress.py reports
    for name in ("botocore", "boto3", "s3transfer", "urllib3", "httpx", "openai", "httpcore"):
        logging.getLogger(name).setLevel(logging.WARNING)
