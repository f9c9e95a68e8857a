# SPDX-License-Identifier: Apache-2.0
"""kubectl as a user runs it, against one namespace of a test cluster."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from support.kube import unavailable


@dataclass(frozen=True)
class Kubectl:
    """`folder` holds its cache of API discovery, so that nothing of the user's is read or written."""

    kubeconfig: Path
    namespace: str
    folder: Path

    def run(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run one command and return what came of it."""
        program = shutil.which("kubectl")
        if program is None:
            unavailable("kubectl is not on PATH")
        options = (f"--namespace={self.namespace}", f"--cache-dir={self.folder}/cache", "--request-timeout=20s")
        environment = {**os.environ, "KUBECONFIG": str(self.kubeconfig), "HOME": str(self.folder)}
        command = [str(program), *options, *arguments]
        return subprocess.run(command, input=stdin, env=environment, capture_output=True, text=True, timeout=60)

    def __call__(self, *arguments: str, stdin: str = "") -> str:
        """Run a command that must succeed; return its output."""
        done = self.run(*arguments, stdin=stdin)
        assert done.returncode == 0, f"kubectl {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def refused(self, *arguments: str, stdin: str = "") -> str:
        """Run a command that must fail; return what it complained about."""
        done = self.run(*arguments, stdin=stdin)
        assert done.returncode != 0, f"kubectl {' '.join(arguments)} succeeded: {done.stdout}"
        return done.stderr
