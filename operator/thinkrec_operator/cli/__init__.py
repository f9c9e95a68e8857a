# SPDX-License-Identifier: Apache-2.0
"""The `thinkrec` command: one module for each group of subcommands, all of them thin.

    common      options, errors with one clear message
    run         run, serve, stop;  compare: a run with an experiment
    look        validate, status, plan, explain-key, logs, report, clean
    recommend   recommend
    tables      tables and places that several of them show

Only here is anything printed.
"""

from __future__ import annotations

from thinkrec_operator.cli import look, recommend, run
from thinkrec_operator.cli.common import app

__all__ = ["app", "look", "recommend", "run"]
