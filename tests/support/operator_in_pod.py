# SPDX-License-Identifier: Apache-2.0
"""The operator with the credentials of a pod, whose ServiceAccount is mounted somewhere else than in one.

Usage: `python operator_in_pod.py FOLDER`; the folder holds `token` and `ca.crt`
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path

from thinkrec_operator.cluster import credentials
from thinkrec_operator.cluster.main import main

if __name__ == "__main__":
    credentials.load = functools.partial(credentials.load, account=Path(sys.argv[1]))
    sys.exit(main([]))
