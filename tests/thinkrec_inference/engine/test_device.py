# SPDX-License-Identifier: Apache-2.0
"""Precision and threads follow the machine, unless they are given."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from thinkrec_crds.stages import ComputeOptions
from thinkrec_inference.engine.device import _available_cpus, _cpu_flags, resolve, set_threads


def test_a_given_precision_is_taken() -> None:
    found = resolve(ComputeOptions(device="Cpu", precision="BFloat16"))
    assert (found.device.type, found.dtype, found.precision) == ("cpu", torch.bfloat16, "BFloat16")


def test_auto_precision_on_a_cpu_follows_its_flags() -> None:
    native = bool(_cpu_flags() & {"avx512_bf16", "amx_bf16", "amx_tile"})
    assert resolve(ComputeOptions(device="Cpu")).precision == ("BFloat16" if native else "Float32")


def test_flags_are_read_as_the_kernel_writes_them(tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nflags\t\t: fpu avx2 avx512_bf16\n\nprocessor\t: 1\n")
    assert _cpu_flags(tmp_path / "cpuinfo") == {"fpu", "avx2", "avx512_bf16"}
    assert _cpu_flags(tmp_path / "absent") == frozenset()


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a CUDA device")
def test_asking_for_an_absent_gpu_says_so() -> None:
    with pytest.raises(ValueError, match=r"compute\.device is Cuda, but torch sees no CUDA device"):
        resolve(ComputeOptions(device="Cuda"))
    assert resolve(ComputeOptions(device="Auto")).device.type == "cpu"


def test_the_container_limit_cuts_the_cpus(tmp_path: Path) -> None:
    limit = tmp_path / "cpu.max"
    allowed = len(os.sched_getaffinity(0))
    for content, expected in (("max 100000", allowed), ("100000 100000", 1), ("50000 100000", 1)):
        limit.write_text(content + "\n")
        assert _available_cpus(limit) == expected
    assert _available_cpus(tmp_path / "absent") == allowed


def test_given_threads_are_set(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    try:
        assert set_threads(ComputeOptions(threads=2)) == torch.get_num_threads() == 2
        monkeypatch.setenv("OMP_NUM_THREADS", "1")
        assert set_threads(ComputeOptions()) == torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)
