# SPDX-License-Identifier: Apache-2.0
"""Takes our finalizer off every model: after an uninstall nobody else would, and deleted models would stay for ever."""

from __future__ import annotations

import logging

from thinkrec_crds.group import FINALIZER
from thinkrec_operator.cluster import credentials, resources
from thinkrec_operator.cluster.api import Api, Body
from thinkrec_operator.cluster.config import OperatorConfig
from thinkrec_operator.cluster.errors import ApiError
from thinkrec_operator.cluster.listed import read_item
from thinkrec_operator.cluster.metrics import Metrics

_TRIES = 5

_log = logging.getLogger(__name__)


async def release_finalizers(config: OperatorConfig) -> int:
    """Take the finalizer off; return from how many models. Artifacts stay in the store."""
    api = Api(await credentials.load(), Metrics())
    try:
        found = 0
        for namespace in config.namespaces or (None,):
            async for page in api.pages(resources.MODEL, namespace):
                for item in page.items:
                    found += await _release(api, read_item(item).body())
        return found
    except ApiError as error:
        if error.not_found:
            return 0  # no CRD, so no model
        raise
    finally:
        await api.close()


async def _release(api: Api, body: Body) -> bool:
    meta = body["metadata"]
    namespace, name = meta["namespace"], meta["name"]
    for _ in range(_TRIES):
        finalizers = list(meta.get("finalizers") or ())
        if FINALIZER not in finalizers:
            return False
        kept = [item for item in finalizers if item != FINALIZER]
        try:
            await api.set_finalizers(resources.MODEL, namespace, name, version=meta["resourceVersion"], finalizers=kept)
        except ApiError as error:
            if error.not_found:
                return False
            if not (error.conflict or error.status == 422):  # somebody changed it meanwhile
                raise
            meta = (await api.get(resources.MODEL, namespace, name))["metadata"]
            continue
        _log.info("released %s/%s", namespace, name)
        return True
    raise ApiError(409, "Conflict", f"{namespace}/{name} changes all the time; try again")
