# SPDX-License-Identifier: Apache-2.0
"""How the operator proves who it is: the pod's ServiceAccount, else a kubeconfig.

The kubelet replaces the ServiceAccount's token on disk about once an hour. Both users of it (Kopf's watches and our own
calls) look at the file whenever they need it, so a token is never used after it was replaced.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import aiohttp
import kopf
from kubernetes.aio import config as kube_config
from kubernetes.aio.client import Configuration

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_BEARER = "bearer "


class CredentialsMissing(RuntimeError):  # noqa: N818 (the caller reads `except CredentialsMissing`)
    """There is neither a ServiceAccount nor a kubeconfig."""


@dataclass(slots=True)
class Credentials:
    """Where the apiserver is and how to be let in."""

    configuration: Configuration
    token_file: Path | None = None
    """Holds the newest token; None where the kubeconfig has it."""
    _token: str | None = field(default=None, init=False)
    _read: int = field(default=-1, init=False)

    async def token(self) -> str | None:
        """Return the bearer token as of now, or None where a certificate is used."""
        if self.token_file is None:
            given = await self.configuration.get_api_key_with_prefix("BearerToken")
            return given[len(_BEARER) :] if given and given.lower().startswith(_BEARER) else given
        written = self.token_file.stat().st_mtime_ns
        if written != self._read:
            self._token, self._read = self.token_file.read_text().strip(), written
        return self._token

    def for_kopf(self, *middlewares: aiohttp.ClientMiddlewareType) -> kopf.AiohttpSession:
        """Return a session for Kopf, which closes it; each request bears the token of its own moment."""
        given = kopf.ConnectionInfo(
            server=self.configuration.host,
            ca_path=self.configuration.ssl_ca_cert,
            insecure=None if self.configuration.verify_ssl else True,
            certificate_path=self.configuration.cert_file,
            private_key_path=self.configuration.key_file,
        )
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ssl=given.as_ssl_context()),
            middlewares=(*middlewares, self._bear_token),
            proxy=self.configuration.proxy,
        )
        return kopf.AiohttpSession(server=given.server, aiohttp_session=session)

    async def _bear_token(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        if token := await self.token():
            request.headers["Authorization"] = f"Bearer {token}"
        return await handler(request)


async def load(environment: Mapping[str, str] = os.environ, *, account: Path = ACCOUNT) -> Credentials:
    """Return the credentials of this process; raise CredentialsMissing saying what was looked for."""
    configuration = Configuration()
    configuration.retries = None  # what may be repeated is decided by the queue, which looks again before it does
    # The client would look for a proxy and into ~/.netrc at each request, in threads: a third of what a write costs.
    configuration.client_session_kwargs = {"trust_env": False}
    found = await _found(configuration, environment, account)
    configuration.proxy = configuration.proxy or environment_proxy(configuration.host)
    return found


def environment_proxy(url: str) -> str | None:
    """Return the proxy that HTTPS_PROXY, HTTP_PROXY and NO_PROXY name for an address, or None."""
    parts = urlsplit(url)
    return None if proxy_bypass(parts.netloc) else getproxies().get(parts.scheme)


async def _found(configuration: Configuration, environment: Mapping[str, str], account: Path) -> Credentials:
    host = environment.get("KUBERNETES_SERVICE_HOST")
    if host:
        return _in_cluster(configuration, host, environment.get("KUBERNETES_SERVICE_PORT") or "443", account)
    try:
        await kube_config.load_kube_config(  # type: ignore[no-untyped-call]
            config_file=environment.get("KUBECONFIG"), client_configuration=configuration, persist_config=False
        )
    except (kube_config.ConfigException, OSError) as error:
        raise CredentialsMissing(
            f"no credentials for a cluster: {error}. Inside a pod, mount the ServiceAccount's token; "
            "elsewhere set KUBECONFIG to a kubeconfig file."
        ) from error
    return Credentials(configuration)


def _in_cluster(configuration: Configuration, host: str, port: str, account: Path) -> Credentials:
    token, authority = account / "token", account / "ca.crt"
    missing = [str(path) for path in (token, authority) if not path.is_file()]
    if missing:
        raise CredentialsMissing(
            f"{' and '.join(missing)} not found although KUBERNETES_SERVICE_HOST is set; "
            "set `automountServiceAccountToken: true` for the operator's pod"
        )
    configuration.host = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
    configuration.ssl_ca_cert = str(authority)
    return Credentials(configuration, token)
