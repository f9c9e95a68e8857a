# SPDX-License-Identifier: Apache-2.0
"""The environment of the processes that the local driver starts. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

_SECRET = re.compile(r"^(AWS|SOURCE)_|(^|_)(TOKEN|SECRET|PASSWORD|CREDENTIALS|API_KEY|ACCESS_KEY|PRIVATE_KEY)(_|$)")
"""Names of variables that hold keys or lead to them: the store's and the sources', a hub's token, a teacher's key."""


def without_secrets(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without credentials, for processes that reach no store, no hub and no teacher."""
    return {name: value for name, value in environment.items() if not _SECRET.search(name.upper())}


def computing(environment: Mapping[str, str], cpus: int) -> dict[str, str]:
    """Return the environment of a Python process that computes on `cpus` CPUs.

    OpenMP's threads wait by sleeping: beside a neighbour, threads that spin take the very CPUs they wait for.
    """
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS"), str(cpus))
    return {
        "OMP_WAIT_POLICY": "PASSIVE",
        **environment,
        **threads,
        "PYTHONSAFEPATH": "1",
        "PYTHONUNBUFFERED": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
