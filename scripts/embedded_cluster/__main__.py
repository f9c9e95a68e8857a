# SPDX-License-Identifier: Apache-2.0
"""`python -m embedded_cluster` is `scripts/cluster`."""

from __future__ import annotations

from embedded_cluster.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
