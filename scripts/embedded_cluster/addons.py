# SPDX-License-Identifier: Apache-2.0
"""Run the controllers of JobSet and Kubeflow Trainer beside a control plane, as their projects install them.

Each gets its CRDs, a configuration file, and its webhooks: the program serves them on the loopback device with a
certificate of the cluster's own authority, and the API server calls them there by URL, where an installation would go
through a Service.
"""

from __future__ import annotations

import base64
import functools
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml

from embedded_cluster import addon_programs
from embedded_cluster.addon_programs import Addon
from embedded_cluster.certificates import Authority
from embedded_cluster.cluster import Cluster
from embedded_cluster.network import free_ports
from embedded_cluster.processes import write_atomically

Body = dict[str, Any]
_HOST = "127.0.0.1"
_CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
_HOOKS = "/apis/admissionregistration.k8s.io/v1"
_START_SECONDS = 60
_ONLY_OF_JOB_SETS = {"matchExpressions": [{"key": "jobset.sigs.k8s.io/jobset-name", "operator": "Exists"}]}
"""JobSet's webhooks of pods ask for its own pods only; its kustomization adds this to the generated manifest."""


def install(cluster: Cluster, addon: Addon) -> None:
    """Install its CRDs and wait until the API server serves them."""
    bodies = [body for body in addon.bodies() if body["kind"] == "CustomResourceDefinition"]
    for body in bodies:
        cluster.api.create(_CRDS, body)
    for body in bodies:
        served = functools.partial(_is_served, cluster, body)
        what = f"the API server to serve {body['metadata']['name']}"
        cluster.processes.wait(served, _START_SECONDS, what=what, needs=["kube-apiserver"])


@contextmanager
def running(cluster: Cluster, addon: Addon) -> Iterator[int]:
    """Run the controller with its webhooks while inside; yield its process id."""
    addon_programs.ensure([addon])
    health, hooks = free_ports(_HOST, 2)
    folder = cluster.state.configuration / addon.program
    _write_certificate(cluster, folder, addon.program)
    config = folder / "config.yaml"
    write_atomically(config, yaml.safe_dump(_configuration(addon, health, hooks)))
    more = {"KUBECONFIG": str(cluster.kubeconfig), "TMPDIR": str(folder)}
    process = cluster.processes.start(addon.program, [str(addon.path), f"--config={config}"], more=more)
    created: list[str] = []
    try:
        ready = functools.partial(_answers, f"http://{_HOST}:{health}/readyz")
        cluster.processes.wait(ready, _START_SECONDS, what=f"the start of {addon.program}", needs=[addon.program])
        created = [_create_hooks(cluster, addon, body, hooks) for body in addon.bodies() if "webhooks" in body]
        yield process.pid
    finally:
        for path in created:  # first, or nothing could be created any more
            cluster.api.delete(path)
        cluster.processes.stop(addon.program)


def _configuration(addon: Addon, health: int, hooks: int) -> Body:
    return {
        "apiVersion": addon.configuration,
        "kind": "Configuration",
        "health": {"healthProbeBindAddress": f"{_HOST}:{health}"},
        "webhook": {"host": _HOST, "port": hooks},
        "metrics": {"bindAddress": "0"},
        "leaderElection": {"leaderElect": False},
        addon.certificates: {"enable": False},
    }


def _write_certificate(cluster: Cluster, folder: Path, name: str) -> None:
    """Put a certificate where controller-runtime looks for one, below the program's own TMPDIR."""
    target = folder / "k8s-webhook-server" / "serving-certs"
    if target.exists():
        return  # of an earlier run beside the same control plane
    target.mkdir(parents=True)
    pair = Authority.load(cluster.state.certificates).issue(name, name, hosts=[_HOST])
    shutil.copy(pair.certificate, target / "tls.crt")
    shutil.copy(pair.key, target / "tls.key")


def _create_hooks(cluster: Cluster, addon: Addon, body: Body, port: int) -> str:
    """Create a webhook configuration that finds the program by URL; return its path."""
    bundle = base64.b64encode(cluster.authority.read_bytes()).decode()
    for hook in body["webhooks"]:
        path = hook["clientConfig"]["service"]["path"]
        hook["clientConfig"] = {"url": f"https://{_HOST}:{port}{path}", "caBundle": bundle}
        if any("pods" in rule["resources"] for rule in hook["rules"]):
            hook["objectSelector"] = _ONLY_OF_JOB_SETS
    collection = f"{_HOOKS}/{body['kind'].lower()}s"
    created = cluster.api.create(collection, {**body, "metadata": {"name": addon.program}})
    return f"{collection}/{created['metadata']['name']}"


def _is_served(cluster: Cluster, body: Body) -> bool:
    spec = body["spec"]
    paths = (f"/apis/{spec['group']}/{version['name']}/{spec['names']['plural']}" for version in spec["versions"])
    return all(cluster.api.find(path) is not None for path in paths)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False
