# SPDX-License-Identifier: Apache-2.0
"""What docs/quickstart.md needs beside a cluster: a store with the example's data, and the example for that cluster."""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import boto3
import yaml

import example_data
from embedded_cluster import cluster, mounted_environment
from embedded_cluster.errors import ClusterError
from embedded_cluster.paths import REPOSITORY, cluster_folder
from support import seaweed

BUCKETS = ("data", "models")
VOLUMES = 200
"""Of 64 MB each; the server gives every bucket several."""
EXAMPLE = REPOSITORY / "examples" / "movielens-cluster"
_STORE = "an S3 server with the example's data, reachable from the pods of the embedded cluster; runs until Ctrl-C"
_OVERLAY = "print examples/movielens-cluster for the embedded cluster, where stages run in this checkout's environment"


def main() -> int:
    """Run `store` or `overlay`; return the exit code."""
    parser = argparse.ArgumentParser(prog="scripts/quickstart", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    store = commands.add_parser("store", help=_STORE, description=_STORE)
    store.add_argument("--name", default="dev", help="the embedded cluster (default: dev)")
    overlay = commands.add_parser("overlay", help=_OVERLAY, description=_OVERLAY)
    overlay.add_argument("--endpoint", required=True, help="the address that `scripts/quickstart store` printed")
    overlay.add_argument("--namespace", default="movies", help="namespace of the model (default: movies)")
    options = parser.parse_args()
    try:
        if options.command == "store":
            serve(options.name)
        else:
            sys.stdout.write(rendered(options.endpoint, options.namespace))
    except (ClusterError, subprocess.CalledProcessError) as error:
        sys.stderr.write(f"error: {getattr(error, 'stderr', None) or error}\n")
        return 70
    return 0


def serve(name: str) -> None:
    """Start the server, put the data in, say how to reach it, and wait."""
    address = cluster.load(cluster_folder(name)).network.machine
    with (
        tempfile.TemporaryDirectory(prefix="thinkrec-store-") as folder,
        seaweed.running(Path(folder), address=address, volumes=VOLUMES) as server,
    ):
        _fill(server)
        sys.stdout.write(
            f"the store is at {server.endpoint}\n"
            "kubectl --namespace movies create secret generic store"
            f" --from-literal=AWS_ACCESS_KEY_ID={seaweed.ACCESS_KEY}"
            f" --from-literal=AWS_SECRET_ACCESS_KEY={seaweed.SECRET_KEY}\n"
        )
        sys.stdout.flush()
        signal.sigwait({signal.SIGINT, signal.SIGTERM})


def _fill(server: seaweed.Seaweed) -> None:
    client = boto3.client(
        "s3",
        endpoint_url=server.endpoint,
        aws_access_key_id=seaweed.ACCESS_KEY,
        aws_secret_access_key=seaweed.SECRET_KEY,
        region_name="us-east-1",
    )
    for bucket in BUCKETS:
        client.create_bucket(Bucket=bucket)
    for prefix, folder in {"ratings": example_data.movielens(), "base-model": example_data.smollm2()}.items():
        for path in sorted(item for item in folder.rglob("*") if item.is_file()):
            client.upload_file(str(path), "data", f"movielens/{prefix}/{path.relative_to(folder)}")


def rendered(endpoint: str, namespace: str) -> str:
    """Return the example with the store's address, its namespace, and pods that see this checkout's environment."""
    text = subprocess.run(["kubectl", "kustomize", str(EXAMPLE)], check=True, capture_output=True, text=True).stdout
    body: dict[str, Any] = yaml.safe_load(text)
    body["metadata"]["namespace"] = namespace
    spec = body["spec"]
    spec["artifacts"]["endpoint"] = endpoint
    training, serving = spec.setdefault("training", {}), spec.setdefault("serving", {})
    training |= {"image": mounted_environment.IMAGE, "podTemplate": mounted_environment.training()}
    serving |= {"image": mounted_environment.IMAGE, "podTemplate": mounted_environment.serving()}
    return yaml.safe_dump(body, sort_keys=False)


if __name__ == "__main__":
    # Both signals are waited for; without this the first would end the process before the server.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    sys.exit(main())
