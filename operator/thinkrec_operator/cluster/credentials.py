# SPDX-License-Identifier: Apache-2.0
"""How the operator proves who it is: the pod's ServiceAccount, else a kubeconfig. Tokens are read again in time.

The ServiceAccount's token is replaced on disk about once an hour; both users of it (Kopf's watches and our own calls)
read the file again before it expires, so that no call is ever refused for an old one.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Mapping
from pathlib import Path

import kopf
from kubernetes.aio import config as kube_config
from kubernetes.aio.client import Configuration

TOKEN_PERIOD = datetime.timedelta(minutes=5)
"""How long a token that was read is used; the kubelet replaces it long before it expires."""
_BEARER = "bearer "


class CredentialsMissing(RuntimeError):  # noqa: N818 (the caller reads `except CredentialsMissing`)
    """There is neither a ServiceAccount nor a kubeconfig."""


async def load(environment: Mapping[str, str] = os.environ) -> Configuration:
    """Return the client configuration of this process; raise CredentialsMissing saying what was looked for."""
    configuration = Configuration()
    try:
        if environment.get("KUBERNETES_SERVICE_HOST"):
            kube_config.load_incluster_config(configuration)  # type: ignore[no-untyped-call]
        else:
            await kube_config.load_kube_config(  # type: ignore[no-untyped-call]
                config_file=environment.get("KUBECONFIG"), client_configuration=configuration, persist_config=False
            )
    except kube_config.ConfigException as error:
        raise CredentialsMissing(
            f"no credentials for a cluster: {error}. Inside a pod, mount the ServiceAccount's token; "
            "elsewhere set KUBECONFIG to a kubeconfig file."
        ) from error
    configuration.retries = None  # what may be repeated is decided by the queue, which re-reads before it does
    return configuration


async def connection(configuration: Configuration) -> kopf.ConnectionInfo:
    """Return the same credentials in Kopf's words; Kopf asks again when they expire."""
    token = await configuration.get_api_key_with_prefix("BearerToken")
    expires = datetime.datetime.now(datetime.UTC) + TOKEN_PERIOD if token else None
    return kopf.ConnectionInfo(
        server=configuration.host,
        ca_path=configuration.ssl_ca_cert,
        insecure=None if configuration.verify_ssl else True,
        scheme="Bearer" if token else None,
        token=token[len(_BEARER) :] if token and token.lower().startswith(_BEARER) else token,
        certificate_path=configuration.cert_file,
        private_key_path=configuration.key_file,
        expiration=expires,
    )


def own_namespace(path: Path = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")) -> str | None:
    """Return the namespace this pod runs in, or None outside a cluster."""
    try:
        return path.read_text().strip() or None
    except OSError:
        return None
