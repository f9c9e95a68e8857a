# SPDX-License-Identifier: Apache-2.0
"""Where and how precisely to compute, decided at run time from what the machine does natively."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from thinkrec_crds.stages import ComputeOptions

_DTYPES = {"Float32": torch.float32, "BFloat16": torch.bfloat16, "Float16": torch.float16}
_BF16_CUDA_CAPABILITY = 8
"""Ampere: the first CUDA generation with bf16 tensor cores."""
_BF16_CPU_FLAGS = frozenset({"avx512_bf16", "amx_bf16", "amx_tile"})
"""Without one of these, bf16 on x86 is emulated and slower than fp32."""


@dataclass(frozen=True, slots=True)
class Device:
    """A resolved choice."""

    device: torch.device
    dtype: torch.dtype
    """Of the base model's weights; scores are fp32 whatever it is."""
    precision: str
    """`Float32`, `BFloat16` or `Float16`: the name of `dtype` in the contract."""


def resolve(options: ComputeOptions) -> Device:
    """Return the device and precision that `options` ask for.

    `Auto` precision is BFloat16 only where it is natively fast (CUDA capability 8 or more, CPU with AVX-512 BF16 or
    AMX), else Float32. Raises ValueError where CUDA is asked for and absent.
    """
    device = _device(options)
    precision = options.precision
    if precision == "Auto":
        precision = "BFloat16" if _native_bf16(device) else "Float32"
    return Device(device=device, dtype=_DTYPES[precision], precision=precision)


def set_threads(options: ComputeOptions) -> int:
    """Set torch's intra-op threads and return their number.

    `options.threads` wins, then OMP_NUM_THREADS, then the container's CPU limit, then the machine's CPUs: more threads
    than CPUs make OpenMP's waiting threads slow each other down many times over.
    """
    environment = os.environ.get("OMP_NUM_THREADS", "")
    threads = options.threads or (int(environment) if environment.isdigit() else 0) or _available_cpus()
    torch.set_num_threads(threads)
    return threads


def _device(options: ComputeOptions) -> torch.device:
    available = torch.cuda.is_available()
    if options.device == "Cuda" and not available:
        raise ValueError(
            "compute.device is Cuda, but torch sees no CUDA device here; use Auto or Cpu, or a node with a GPU"
        )
    return torch.device("cuda" if available and options.device != "Cpu" else "cpu")


def _native_bf16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device)[0] >= _BF16_CUDA_CAPABILITY
    return bool(_cpu_flags() & _BF16_CPU_FLAGS)


def _cpu_flags(path: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """Return the first CPU's feature flags; empty where the kernel does not list them."""
    if not path.is_file():
        return frozenset()
    for line in path.read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


def _available_cpus(limit: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Return CPUs this process may use: its affinity, cut to the cgroup's quota (at least one)."""
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if limit.is_file():
        quota, _, period = limit.read_text().strip().partition(" ")
        if quota.isdigit() and period.isdigit():
            cpus = min(cpus, max(1, int(quota) // int(period)))
    return cpus
