# SPDX-License-Identifier: Apache-2.0
"""`python -m thinkrec_trainer`: see cli.py."""

from __future__ import annotations

from thinkrec_trainer.cli import app

app()
