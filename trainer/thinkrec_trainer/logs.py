# SPDX-License-Identifier: Apache-2.0
"""Logs as JSON lines on standard error. Values of secret environment variables are masked wherever they appear."""

from __future__ import annotations

import datetime
import json
import logging
import os
import re
import sys

MASK = "***"
_SECRET_NAME = re.compile(r"(SECRET|TOKEN|PASSWORD|API_KEY|ACCESS_KEY)", re.IGNORECASE)
_SHORTEST_SECRET = 6
"""Shorter values would mask ordinary words."""


def secret_values(environment: dict[str, str] | None = None) -> tuple[str, ...]:
    """Return the values of variables whose name says that they are secret, longest first."""
    found = os.environ if environment is None else environment
    values = {v for k, v in found.items() if _SECRET_NAME.search(k) and len(v) >= _SHORTEST_SECRET}
    return tuple(sorted(values, key=len, reverse=True))


def masked(text: str, secrets: tuple[str, ...]) -> str:
    """Return `text` with every secret replaced."""
    for secret in secrets:
        text = text.replace(secret, MASK)
    return text


class JsonFormatter(logging.Formatter):
    """One JSON object per record: time, level, logger, message, traceback."""

    def __init__(self, secrets: tuple[str, ...]) -> None:
        super().__init__()
        self._secrets = secrets

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        body = {
            "time": datetime.datetime.fromtimestamp(record.created, datetime.UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            body["traceback"] = self.formatException(record.exc_info)
        return masked(json.dumps(body, ensure_ascii=False), self._secrets)


def configure_logs(level: int = logging.INFO) -> None:
    """Send every log of this process to standard error; chatty libraries only from warnings on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(secret_values()))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # bars would break the lines; progress.py reports
    for name in ("botocore", "boto3", "s3transfer", "urllib3", "httpx", "openai", "httpcore"):
        logging.getLogger(name).setLevel(logging.WARNING)
