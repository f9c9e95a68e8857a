# SPDX-License-Identifier: Apache-2.0
"""`python -m thinkrec_operator`: the operator process and its one helper command."""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import sys
from dataclasses import fields

import kopf

from thinkrec_crds.exit_codes import Exit
from thinkrec_operator.cluster.config import PREFIX, ConfigError, OperatorConfig, from_environment
from thinkrec_operator.cluster.credentials import CredentialsMissing
from thinkrec_operator.cluster.errors import ApiError
from thinkrec_operator.cluster.release import release_finalizers
from thinkrec_operator.cluster.runtime import KindsChanged, Operator

_log = logging.getLogger(__name__)

_COLLECT_AFTER = (20_000, 20, 50)
"""A page of a list, or one decision, makes thousands of containers and no cycles: look for those less often."""

_EXAMPLES = """examples:
  KUBECONFIG=cluster.yaml python -m thinkrec_operator
  THINKREC_NAMESPACES=team-a,team-b python -m thinkrec_operator run
  python -m thinkrec_operator release-finalizers
"""


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    parser = _parser()
    chosen = parser.parse_args(arguments)
    try:
        config = from_environment(os.environ)
    except ConfigError as error:
        parser.exit(Exit.USAGE, f"The environment cannot be used:\n{error}\n")
    _configure_logs(config)
    gc.set_threshold(*_COLLECT_AFTER)
    run = _release(config) if chosen.command == "release-finalizers" else _run(config)
    try:
        return asyncio.run(run)
    except CredentialsMissing as error:
        _log.error("%s", error)
        return Exit.USAGE
    except OSError as error:
        _log.error("%s", error)
        return Exit.FAILED


async def _run(config: OperatorConfig) -> int:
    try:
        await Operator(config).run()
    except KindsChanged as news:
        _log.info("%s", news)
    return Exit.DONE


async def _release(config: OperatorConfig) -> int:
    try:
        count = await release_finalizers(config)
    except ApiError as error:
        _log.error("finalizers could not be released: %s", error)
        return Exit.FAILED
    _log.info("released the finalizer of %d models", count)
    return Exit.DONE


def _parser() -> argparse.ArgumentParser:
    lines = "\n".join(
        f"  {PREFIX}{field.name.upper()} (default: {field.default or 'none'})" for field in fields(OperatorConfig)
    )
    parser = argparse.ArgumentParser(
        prog="python -m thinkrec_operator",
        description="The operator: turns ThinkRecModels into training Jobs and served models.",
        epilog=f"environment:\n{lines}\n\n{_EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "command",
        nargs="?",
        choices=("run", "release-finalizers"),
        default="run",
        help="run (the default) works until SIGTERM; release-finalizers takes our finalizer off every model",
    )
    return parser


def _configure_logs(config: OperatorConfig) -> None:
    json_lines = config.log_format == "json"
    kopf.configure(
        log_format=kopf.LogFormat.JSON if json_lines else kopf.LogFormat.FULL,
        verbose=config.log_level == "debug",
    )
    level = config.log_level.upper()
    logging.getLogger("thinkrec_operator").setLevel(level)
    logging.getLogger("kopf").setLevel("WARNING" if level == "INFO" else level)


if __name__ == "__main__":
    sys.exit(main())
