# SPDX-License-Identifier: Apache-2.0
"""Our own calls to the apiserver, and the only place that makes them: each one is counted and timed.

The generated client's transport is used (TLS, proxies, token renewal), its generated types are not: what is written
are rendered manifests, what comes back goes to the view at once. Discovery of the dynamic client is left out too: it
keeps a cache file under a name that can be guessed, and the kinds here are known (docs/adr/0007).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio.client.rest import RESTClientObject
from msgspec import Raw
from pydantic_core import from_json

from thinkrec_crds import group
from thinkrec_operator.cluster.credentials import Credentials
from thinkrec_operator.cluster.errors import ApiError, from_response
from thinkrec_operator.cluster.listed import read_answer
from thinkrec_operator.cluster.metrics import Metrics
from thinkrec_operator.cluster.resources import JOB, JOB_SET, TRAIN_JOB, Resource

Body = Mapping[str, Any]
"""A Kubernetes object as JSON; the view turns it into a frozen value."""

REQUEST_SECONDS: Final = 30.0
LOG_SECONDS: Final = 3.0
"""A kubelet that is away must not hold up a worker: progress is a courtesy."""
PAGE: Final = 500
_APPLY: Final = "application/apply-patch+yaml"
_JSON_PATCH: Final = "application/json-patch+json"


@dataclass(frozen=True, slots=True)
class Page:
    """A part of a list."""

    version: int
    """Resource version of the moment that the whole list shows."""
    items: list[Raw]
    """As they came; `listed.read_item` reads one."""


class Api:
    """The apiserver."""

    def __init__(self, credentials: Credentials, metrics: Metrics, *, connections: int = 8) -> None:
        """Open no connection yet."""
        self._credentials = credentials
        credentials.configuration.connection_pool_maxsize = connections
        self._rest = RESTClientObject(credentials.configuration)
        self._metrics = metrics

    async def close(self) -> None:
        """Close every connection."""
        await self._rest.close()

    async def pages(self, resource: Resource, namespace: str | None, *, selector: str = "") -> AsyncIterator[Page]:
        """Yield every object of a kind, page by page, all as of one moment."""
        token = ""
        while True:
            query = {"limit": str(PAGE), "labelSelector": selector, "continue": token}
            found = read_answer(await self._call("list", resource, resource.path(namespace), query=query))
            yield Page(int(found.metadata.resourceVersion or 0), found.items or [])
            token = found.metadata.continue_
            if not token:
                return

    async def get(self, resource: Resource, namespace: str, name: str) -> Body:
        """Return one object; raise ApiError(404) where it is not."""
        return _json(await self._call("get", resource, resource.path(namespace, name)))

    async def apply(self, resource: Resource, manifest: Body, *, manager: str = group.FIELD_MANAGER) -> Body:
        """Create the object or bring our own fields to what the manifest says (server-side apply); return it."""
        meta = manifest["metadata"]
        path = resource.path(meta["namespace"], meta["name"])
        return await self._apply(resource, path, manifest, manager)

    async def apply_status(self, resource: Resource, manifest: Body) -> Body:
        """Write the status subresource by server-side apply; raise ApiError(404) where the object is gone."""
        meta = manifest["metadata"]
        path = resource.path(meta["namespace"], meta["name"], "status")
        return await self._apply(resource, path, manifest, group.FIELD_MANAGER)

    async def _apply(self, resource: Resource, path: str, manifest: Body, manager: str) -> Body:
        query = {"fieldManager": manager, "force": "true"}
        return _json(await self._call("apply", resource, path, query=query, body=manifest, content_type=_APPLY))

    async def create(self, resource: Resource, namespace: str, manifest: Body) -> Body:
        """Create an object; raise ApiError(409) where one of that name exists."""
        query = {"fieldManager": group.FIELD_MANAGER, "fieldValidation": "Strict"}
        return _json(await self._call("create", resource, resource.path(namespace), query=query, body=manifest))

    async def set_finalizers(
        self, resource: Resource, namespace: str, name: str, *, version: str, finalizers: list[str]
    ) -> Body:
        """Replace the finalizers of an object that still has this resource version; else raise ApiError(409 or 422)."""
        patch = [
            {"op": "test", "path": "/metadata/resourceVersion", "value": version},
            {"op": "add", "path": "/metadata/finalizers", "value": finalizers},
        ]
        path = resource.path(namespace, name)
        return _json(await self._call("patch", resource, path, body=patch, content_type=_JSON_PATCH))

    async def delete(self, resource: Resource, namespace: str, name: str, *, uid: str | None = None) -> None:
        """Delete an object and what it owns; one that is gone, or was replaced, is left alone.

        Work stays, marked as deleting, until its Pods are gone: one that still ends may still write to the store.
        """
        policy = "Foreground" if resource in (JOB, JOB_SET, TRAIN_JOB) else "Background"
        body: dict[str, Any] = {"propagationPolicy": policy}
        if uid:
            body["preconditions"] = {"uid": uid}
        try:
            await self._call("delete", resource, resource.path(namespace, name), body=body)
        except ApiError as error:
            if not (error.not_found or (error.conflict and uid)):
                raise

    async def log(self, resource: Resource, namespace: str, name: str, *, container: str, lines: int) -> str:
        """Return the last lines of a container's log."""
        query = {"container": container, "tailLines": str(lines), "limitBytes": str(64 * 1024)}
        path = resource.path(namespace, name, "log")
        raw = await self._call("get", resource, path, query=query, seconds=LOG_SECONDS)
        return raw.decode(errors="replace")

    async def serves(self, resource: Resource) -> bool:
        """Return whether the apiserver knows this kind in this version."""
        try:
            listed = _json(await self._call("get", resource, resource.root))
        except ApiError as error:
            if error.not_found:
                return False
            raise
        return any(item.get("name") == resource.plural for item in listed.get("resources") or ())

    async def _call(
        self,
        verb: str,
        resource: Resource,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
        seconds: float = REQUEST_SECONDS,
    ) -> bytes:
        given = {name: value for name, value in (query or {}).items() if value}
        url = f"{self._credentials.configuration.host}{path}" + (f"?{urlencode(given)}" if given else "")
        # Compressing pages costs the apiserver more than sending them inside a cluster.
        headers = {"Accept": "application/json", "Accept-Encoding": "identity", "Content-Type": content_type}
        if token := await self._credentials.token():
            headers["Authorization"] = f"Bearer {token}"
        code = 0
        try:
            response = await self._rest.request(  # type: ignore[no-untyped-call]
                _METHODS[verb], url, headers=headers, body=body, _request_timeout=aiohttp.ClientTimeout(seconds)
            )
            code, answer = response.status, await response.read()
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise ApiError(0, "Unreachable", f"{verb} {path}: {type(error).__name__}: {error}") from error
        finally:
            self._metrics.api_requests.labels(verb, resource.kind, str(code)).inc()
        if code >= 400:
            raise from_response(code, response.headers, answer)
        return bytes(answer)


def _json(raw: bytes) -> dict[str, Any]:
    found: dict[str, Any] = from_json(raw)  # twice as fast as json.loads, and equal strings are one
    return found


_METHODS: Final = {
    "list": "GET",
    "get": "GET",
    "apply": "PATCH",
    "patch": "PATCH",
    "create": "POST",
    "delete": "DELETE",
}
