# SPDX-License-Identifier: Apache-2.0
"""`python -m support.arithmetic_stack WORK_DIR`: the arithmetic engine behind real Triton, until it is killed.

Prints the process ids of the engine and Triton when both are ready. With `--socket PATH` it is that engine.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from support.arithmetic_engine import ArithmeticEngine
from thinkrec_inference import server
from thinkrec_inference.processes import start
from thinkrec_inference.scheduler import Limits
from thinkrec_inference.supervisor import Options, Stack


def main(arguments: list[str]) -> None:
    """Run the engine, or the parent of both."""
    if arguments[0] == "--socket":
        server.run(server.EngineService(Limits()), lambda: (ArithmeticEngine(), 1e6), Path(arguments[1]))
        return
    stack = Stack.plan(Options(bundle=Path(), base_model=Path(), work_dir=Path(arguments[0]), startup_seconds=60))
    argv = [sys.executable, "-m", "support.arithmetic_stack", "--socket", str(stack.addresses.socket)]
    stack.children.append(start("engine", argv, environment=os.environ, log=stack.options.work_dir / "engine.log"))
    stack.start_triton()
    stack.wait_engine()
    stack.wait_triton()
    sys.stdout.write(" ".join(str(child.pid) for child in stack.children) + "\n")
    sys.stdout.flush()
    time.sleep(300)


if __name__ == "__main__":
    main(sys.argv[1:])
