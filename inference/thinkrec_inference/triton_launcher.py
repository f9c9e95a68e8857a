# SPDX-License-Identifier: Apache-2.0
"""Finds a Triton Inference Server and says how to start it with our models.

Two places: `tritonserver` on PATH or in /opt/tritonserver (the image), or the server inside the wheel `nvidia-pytriton`
(a machine without a container engine). The wheel keeps the Python backend and one stub per Python version apart, so
they are put together in the work folder.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

STUB = "triton_python_backend_stub"
MODELS = ("thinkrec_score", "thinkrec_explain")
IMAGE_HOME = Path("/opt/tritonserver")


class TritonMissingError(RuntimeError):
    """No usable Triton server; the message says how to get one."""


@dataclass(frozen=True, slots=True)
class Install:
    """Where Triton's parts lie."""

    server: Path
    backends: Path
    """Folder with `python/`."""
    stub: Path | None
    """The stub of this Python version, where it is not beside the backend already."""
    libraries: tuple[Path, ...]
    """What must be on LD_LIBRARY_PATH."""


@dataclass(frozen=True, slots=True)
class Ports:
    """Where Triton listens."""

    host: str
    http: int
    grpc: int
    metrics: int


def find(path: str | None = None) -> Install:
    """Return the Triton of this machine; raise TritonMissingError saying what was looked for."""
    on_path = shutil.which("tritonserver", path=path)
    if on_path is not None:
        home = Path(on_path).resolve().parents[1]
        return Install(Path(on_path), home / "backends", stub=None, libraries=(home / "lib",))
    if (IMAGE_HOME / "bin" / "tritonserver").is_file():
        return Install(IMAGE_HOME / "bin" / "tritonserver", IMAGE_HOME / "backends", None, (IMAGE_HOME / "lib",))
    spec = importlib.util.find_spec("pytriton")  # finds without importing: the package patches signal handlers
    if spec is None or spec.origin is None:
        raise TritonMissingError(
            "no Triton server: `tritonserver` is not on PATH, not in /opt/tritonserver, and nvidia-pytriton is not "
            "installed. Use the inference image, or `pip install 'thinkrec[local]'`."
        )
    return _from_wheel(Path(spec.origin).parent)


def _from_wheel(package: Path) -> Install:
    home = package / "tritonserver"
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    stub = home / "python_backend_stubs" / version / STUB
    if not stub.is_file():
        have = sorted(p.name for p in (home / "python_backend_stubs").glob("*"))
        raise TritonMissingError(f"nvidia-pytriton has no stub for Python {version}; it has {have}. Use one of these.")
    libraries = (package.parent / "nvidia_pytriton.libs", Path(sysconfig.get_config_var("LIBDIR")))
    return Install(home / "bin" / "tritonserver", home / "backends", stub, libraries)


def backend_directory(install: Install, work: Path) -> Path:
    """Return a folder that holds the Python backend with its stub, made inside `work` where they lie apart."""
    if install.stub is None:
        return install.backends
    target = work / "backends" / "python"
    if not (target / STUB).is_file():
        shutil.copytree(install.backends / "python", target, dirs_exist_ok=True)
        shutil.copy2(install.stub, target / STUB)
    return target.parent


def model_repository() -> Path:
    """Return the folder of our Triton models: beside this package in a checkout and in the image."""
    folder = Path(os.environ.get("THINKREC_MODEL_REPOSITORY") or Path(__file__).parents[1] / "model_repository")
    missing = [name for name in MODELS if not (folder / name / "config.pbtxt").is_file()]
    if missing:
        raise TritonMissingError(
            f"{folder} has no model {', '.join(missing)}. Set THINKREC_MODEL_REPOSITORY to the folder "
            "inference/model_repository of the sources."
        )
    return folder


def command(install: Install, ports: Ports, *, backends: Path, models: Path, exit_timeout_seconds: int) -> list[str]:
    """Return the command line: only our models, loaded once, never polled or reloaded from outside."""
    return [
        str(install.server),
        f"--model-repository={models}",
        f"--backend-directory={backends}",
        "--model-control-mode=explicit",
        *(f"--load-model={name}" for name in MODELS),
        f"--http-address={ports.host}",
        f"--http-port={ports.http}",
        f"--grpc-address={ports.host}",
        f"--grpc-port={ports.grpc}",
        f"--metrics-address={ports.host}",
        f"--metrics-port={ports.metrics}",
        "--allow-gpu-metrics=false",
        "--disable-auto-complete-config",
        f"--exit-timeout-secs={exit_timeout_seconds}",
    ]


def environment(install: Install, base: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of Triton: this interpreter first on PATH (the stub finds its packages through it)."""
    libraries = [str(path) for path in install.libraries] + [base.get("LD_LIBRARY_PATH", "")]
    return {
        **base,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), base.get("PATH", "")]),
        "LD_LIBRARY_PATH": os.pathsep.join(filter(None, libraries)),
    }
