# SPDX-License-Identifier: Apache-2.0
"""`python -m thinkrec_operator.cli` is `thinkrec`."""

from __future__ import annotations

from thinkrec_operator.cli import app

app(prog_name="thinkrec")
