# SPDX-License-Identifier: Apache-2.0
"""A small synchronous client of the API server, for the cluster's own start and for tests."""

from __future__ import annotations

import ssl
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import yaml

Body = dict[str, Any]
_TRIES = 10
"""Of a request that the API server is too busy for, or whose kind it is about to serve."""
_LONGEST_PAUSE = 2.0


class ApiError(Exception):
    """The API server refused; `code` and `body` are its answer."""

    def __init__(self, response: httpx.Response) -> None:
        self.code = response.status_code
        self.body: Body = _json(response)
        super().__init__(
            f"{response.request.method} {response.request.url.path}: {self.code} {self.body.get('message')}"
        )


class Api:
    """Requests by path, for example `/api/v1/namespaces`; answers are dictionaries."""

    def __init__(self, url: str, *, authority: Path, token: str) -> None:
        headers = {"Authorization": f"Bearer {token}"}
        trust = ssl.create_default_context(cafile=str(authority))
        self._client = httpx.Client(base_url=url, verify=trust, headers=headers, timeout=30, trust_env=False)

    def request(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        """Send one request, again where the API server asks for that; raise ApiError where the answer is an error."""
        for _ in range(_TRIES):
            response = self._client.request(method, path, **arguments)
            if response.status_code != 429:
                break
            time.sleep(min(float(response.headers.get("Retry-After", 1)), _LONGEST_PAUSE))
        if response.is_error:
            raise ApiError(response)
        return response

    def get(self, path: str, **query: Any) -> Body:
        """Read an object or a list."""
        return _json(self.request("GET", path, params=query))

    def find(self, path: str) -> Body | None:
        """Read an object, or return None where there is none."""
        try:
            return self.get(path)
        except ApiError as error:
            if error.code == 404:
                return None
            raise

    def items(self, path: str, **query: Any) -> list[Body]:
        """Read the members of a list."""
        return list(self.get(path, **query)["items"])

    def create(self, path: str, body: Mapping[str, Any], **query: Any) -> Body:
        """Create an object in a collection."""
        return _json(self.request("POST", path, json=body, params=query))

    def replace(self, path: str, body: Mapping[str, Any]) -> Body:
        """Replace an object."""
        return _json(self.request("PUT", path, json=body))

    def patch(self, path: str, body: Mapping[str, Any]) -> Body:
        """Merge into an object (RFC 7386)."""
        return _json(self.request("PATCH", path, json=body, headers={"Content-Type": "application/merge-patch+json"}))

    def apply(self, path: str, body: Mapping[str, Any], *, manager: str, force: bool = True) -> Body:
        """Apply an object on the server."""
        headers = {"Content-Type": "application/apply-patch+yaml"}
        query = {"fieldManager": manager, "force": str(force).lower()}
        return _json(self.request("PATCH", path, content=yaml.safe_dump(dict(body)), headers=headers, params=query))

    def delete(self, path: str, **options: Any) -> None:
        """Delete an object; one that is gone already is no error."""
        try:
            self.request("DELETE", path, json={"kind": "DeleteOptions", "apiVersion": "v1", **options})
        except ApiError as error:
            if error.code != 404:
                raise

    def text(self, path: str, **query: Any) -> str:
        """Read an answer that is no object: logs, health."""
        return self.request("GET", path, params=query).text

    def close(self) -> None:
        """Give the connections back."""
        self._client.close()

    def __enter__(self) -> Api:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _json(response: httpx.Response) -> Body:
    try:
        found = response.json()
    except ValueError:
        return {"message": response.text}
    return found if isinstance(found, dict) else {"message": str(found)}
