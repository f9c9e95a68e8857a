# SPDX-License-Identifier: Apache-2.0
"""First process of a node: it owns the node's network, mounts and process ids, and they end with it.

Everything of the node runs in these namespaces. So the links, the packet filter rules, the mounts and the containers
need no clean-up of their own: the kernel takes them away when this process is gone, however it went.

    unshare --net --mount --pid --fork ... python -m embedded_cluster.holder STATE_FOLDER
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

from embedded_cluster.paths import State

READY = "node namespaces ready"
OVER = {"/var/lib/kubelet": "kubelet", "/var/lib/cni": "cni"}
"""Folders that programs have built in -> what the node sees there instead, below its own data folder."""
_SCRATCH = ("/run", "/var/log")
"""Folders that programs have built in and whose content need not outlive the node."""
_KERNEL_SETTINGS = (
    "vm/overcommit_memory",
    "vm/panic_on_oom",
    "kernel/panic",
    "kernel/panic_on_oops",
    "kernel/keys/root_maxkeys",
    "kernel/keys/root_maxbytes",
)
"""The kubelet insists on writing these, which hold for the whole machine: it writes to copies."""


def main(state: State) -> None:
    """Arrange the namespaces, then wait for ever."""
    _run("mount", "--make-rshared", "/")
    for folder in _SCRATCH:
        _run("mount", "-t", "tmpfs", "tmpfs", folder)
    for folder, own in OVER.items():
        (state.node / own).mkdir(parents=True, exist_ok=True)
        _run("mount", "--bind", str(state.node / own), folder)
    _copy_kernel_settings()
    _run("ip", "link", "set", "lo", "up")
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel collects orphans, which are all adopted by process 1
    print(READY, flush=True)
    while True:
        signal.pause()


def _copy_kernel_settings() -> None:
    folder = Path("/run/kernel-settings")
    folder.mkdir()
    for name in _KERNEL_SETTINGS:
        real, copy = Path("/proc/sys") / name, folder / name.replace("/", ".")
        if real.exists():
            copy.write_text(real.read_text())
            _run("mount", "--bind", str(copy), str(real))


def _run(*argv: str) -> None:
    subprocess.run(argv, check=True)


if __name__ == "__main__":
    main(State(Path(sys.argv[1])))
