# SPDX-License-Identifier: Apache-2.0
"""What docs/quickstart.md needs beside a cluster: a store with the data, the example for that cluster, and users."""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import boto3
import httpx
import yaml

import example_data
from embedded_cluster import cluster, mounted_environment
from embedded_cluster.errors import ClusterError
from embedded_cluster.paths import REPOSITORY, cluster_folder
from support import seaweed, taste

BUCKETS = ("data", "models")
VOLUMES = 200
"""Of 64 MB each; the server gives every bucket several."""
EXAMPLE = REPOSITORY / "examples" / "movielens-cluster"
_STORE = "an S3 server with the example's data, reachable from the pods of the embedded cluster; runs until Ctrl-C"
_USERS = "simulated users: each asks once, and clicks mostly where a newer revision answers than the one of now"
_OVERLAY = "print examples/movielens-cluster for the embedded cluster, where stages run in this checkout's environment"


def main() -> int:
    """Run `store`, `overlay` or `users`; return the exit code."""
    parser = argparse.ArgumentParser(prog="scripts/quickstart", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    store = commands.add_parser("store", help=_STORE, description=_STORE)
    store.add_argument("--name", default="dev", help="the embedded cluster (default: dev)")
    overlay = commands.add_parser("overlay", help=_OVERLAY, description=_OVERLAY)
    overlay.add_argument("--endpoint", required=True, help="the address that `scripts/quickstart store` printed")
    overlay.add_argument("--namespace", default="movies", help="namespace of the model (default: movies)")
    people = commands.add_parser("users", help=_USERS, description=_USERS)
    people.add_argument("--url", required=True, help="address of the model's gateway")
    people.add_argument("--seconds", type=float, default=1200.0, help="how long new users come (default: 1200)")
    options = parser.parse_args()
    try:
        if options.command == "store":
            serve(options.name)
        elif options.command == "users":
            visit(options.url, options.seconds)
        else:
            sys.stdout.write(rendered(options.endpoint, options.namespace))
    except (ClusterError, subprocess.CalledProcessError) as error:
        sys.stderr.write(f"error: {getattr(error, 'stderr', None) or error}\n")
        return 70
    return 0


def visit(url: str, seconds: float) -> None:
    """Let users come who like what another revision answers than the one of now; tell how many, now and then."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT, signal.SIGTERM})  # Ctrl-C ends this one at once
    now = httpx.post(f"{url}/v1/recommend", json={"userId": "1", "k": 1}, timeout=120, trust_env=False)
    now.raise_for_status()
    known: str = now.json()["generation"]
    end = time.monotonic() + seconds
    with taste.Users(url, likes=lambda generation: generation != known, name=f"visitor-{time.time():.0f}") as users:
        while time.monotonic() < end:
            time.sleep(min(10.0, max(0.0, end - time.monotonic())))
            newer = sum(count for generation, count in users.generations.items() if generation != known)
            sys.stdout.write(f"{users.generations[known]} users saw the older revision, {newer} the newer one")
            sys.stdout.write(f", {len(users.failures)} failures: {users.failures[-1]}\n" if users.failures else "\n")
            sys.stdout.flush()


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
