# SPDX-License-Identifier: Apache-2.0
"""What a gateway needs for experiments: the traffic table as a file, and a container that ships its events. Pure.

The pods of an experiment's variant have neither: they answer what a model's gateway forwards, which keeps the log.
"""

from __future__ import annotations

from thinkrec_crds.traffic import TRAFFIC_FILE
from thinkrec_operator.manifests import common
from thinkrec_operator.manifests.common import Manifest
from thinkrec_operator.names import traffic_config_map_name
from thinkrec_operator.plan import DeploymentChild

CONTAINER = "ship-events"
SHIPPING_SECONDS = 30
"""After everything else has ended, for the rest of the events to reach the store."""
TRAFFIC_FOLDER = "/etc/thinkrec/traffic"
_RESOURCES = {"requests": {"cpu": "20m", "memory": "192Mi"}, "limits": {"cpu": "1", "memory": "768Mi"}}
"""A segment of 64 MiB is a table in memory while it is shipped."""


def folder(child: DeploymentChild) -> str:
    """Return where the gateway of these pods keeps its events."""
    return "/scratch/events" if child.serving.gateway_image else "/scratch/serve/events"


def shippers(child: DeploymentChild) -> list[Manifest]:
    """Return the container that brings events into the store; it alone has the store's credentials while pods serve.

    As an init container that is restarted always it begins before the gateway and ends after it, so that the last
    events are shipped too.
    """
    if child.variant:
        return []
    artifacts, secret = child.artifacts, child.artifacts.secret_ref
    options = [
        *("--folder", folder(child), "--store", artifacts.storage_uri, "--model", child.owner.name),
        *(("--endpoint", artifacts.endpoint) if artifacts.endpoint else ()),
        *(("--region", artifacts.region) if artifacts.region else ()),
        *("--grace-seconds", str(SHIPPING_SECONDS - 5)),
    ]
    secrets = [given for given in child.secrets if secret is not None and given.name == secret.name]
    shipper = {
        "name": CONTAINER,
        "image": child.fetch_image,
        "restartPolicy": "Always",
        "command": ["python", "-m", "thinkrec_trainer", "ship-events", *options],
        "env": common.environment({"HOME": "/scratch", "TMPDIR": "/scratch", "POLARS_MAX_THREADS": "1"}),
        "envFrom": common.secret_environment(secrets),
        "resources": _RESOURCES,
        "securityContext": common.container_security(),
        "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}],
    }
    return [common.without_empty(shipper)]


def only_where_needed(child: DeploymentChild, template: Manifest) -> Manifest:
    """Return a variant's pod template without what its model's `podTemplate` says about the shipper, which it lacks."""
    if not child.variant:
        return template
    spec = template["spec"]
    kept = [container for container in spec["initContainers"] if container["name"] != CONTAINER]
    return {**template, "spec": {**spec, "initContainers": kept}}


def traffic_volumes(child: DeploymentChild) -> list[Manifest]:
    """Return the volume with the traffic table; pods start without one, and get it when the first experiment comes."""
    if child.variant:
        return []
    source = {"name": traffic_config_map_name(child.owner.name), "optional": True}
    return [{"name": "traffic", "configMap": source}]


def traffic_mounts(child: DeploymentChild) -> list[Manifest]:
    """Return where that volume is mounted: the whole folder, for a single file would never change."""
    return [] if child.variant else [{"name": "traffic", "mountPath": TRAFFIC_FOLDER, "readOnly": True}]


def traffic_environment(child: DeploymentChild) -> dict[str, str]:
    """Return the gateway's variable that names the file."""
    return {} if child.variant else {"THINKREC_TRAFFIC_FILE": f"{TRAFFIC_FOLDER}/{TRAFFIC_FILE}"}
