# SPDX-License-Identifier: Apache-2.0
"""Finding Triton, putting its parts together, and its command line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from thinkrec_inference import triton_launcher
from thinkrec_inference.triton_launcher import Install, Ports, TritonMissingError

PORTS = Ports("127.0.0.1", 1, 2, 3)


def test_the_wheel_has_server_backend_and_the_stub_of_this_python() -> None:
    install = triton_launcher.find(path="")
    assert os.access(install.server, os.X_OK)
    assert (install.backends / "python").is_dir()
    assert install.stub is not None
    assert install.stub.parent.name == f"{sys.version_info.major}.{sys.version_info.minor}"
    assert all(folder.is_dir() for folder in install.libraries)


def test_a_server_on_the_path_wins(tmp_path: Path) -> None:
    server = tmp_path / "triton" / "bin" / "tritonserver"
    server.parent.mkdir(parents=True)
    server.write_text("#!/bin/sh\n")
    server.chmod(0o755)
    install = triton_launcher.find(path=str(server.parent))
    assert install.server == server
    assert install.backends == tmp_path / "triton" / "backends"
    assert triton_launcher.backend_directory(install, tmp_path / "work") == install.backends, "nothing is copied"


def test_the_backend_and_its_stub_are_put_together_once(tmp_path: Path) -> None:
    install = triton_launcher.find(path="")
    folder = triton_launcher.backend_directory(install, tmp_path)
    stub = folder / "python" / triton_launcher.STUB
    assert os.access(stub, os.X_OK)
    made = stub.stat().st_mtime_ns
    assert triton_launcher.backend_directory(install, tmp_path) == folder
    assert stub.stat().st_mtime_ns == made


def test_the_command_loads_our_models_on_the_given_address_only(tmp_path: Path) -> None:
    install = Install(Path("/t/bin/tritonserver"), Path("/t/backends"), None, ())
    argv = triton_launcher.command(install, PORTS, backends=Path("/b"), models=Path("/m"), exit_timeout_seconds=7)
    assert argv[0] == "/t/bin/tritonserver"
    assert "--model-control-mode=explicit" in argv
    assert [a for a in argv if a.startswith("--load-model")] == [
        "--load-model=thinkrec_score",
        "--load-model=thinkrec_explain",
    ]
    assert {a for a in argv if "address" in a} == {f"--{p}-address=127.0.0.1" for p in ("http", "grpc", "metrics")}
    known = subprocess.run(
        [triton_launcher.find(path="").server, "--help"], capture_output=True, text=True, check=False
    )
    for option in argv[1:]:
        assert option.split("=")[0] in known.stdout + known.stderr, f"Triton does not know {option}"


def test_this_interpreter_comes_first_for_the_stub() -> None:
    install = Install(Path("/t"), Path("/b"), None, (Path("/l1"), Path("/l2")))
    made = triton_launcher.environment(install, {"PATH": "/usr/bin", "LD_LIBRARY_PATH": "/old", "X": "1"})
    assert made["PATH"] == f"{Path(sys.executable).parent}:/usr/bin"
    assert made["LD_LIBRARY_PATH"] == "/l1:/l2:/old"
    assert made["X"] == "1"


def test_a_repository_without_our_models_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert triton_launcher.model_repository().name == "model_repository"
    monkeypatch.setenv("THINKREC_MODEL_REPOSITORY", str(tmp_path))
    with pytest.raises(TritonMissingError, match="thinkrec_score, thinkrec_explain") as error:
        triton_launcher.model_repository()
    assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize("model", triton_launcher.MODELS)
def test_model_files_are_thin(model: str) -> None:
    source = triton_launcher.model_repository() / model / "1" / "model.py"
    assert len(source.read_text().splitlines()) <= 30
