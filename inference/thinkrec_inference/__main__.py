# SPDX-License-Identifier: Apache-2.0
"""`python -m thinkrec_inference`: see cli.py."""

from thinkrec_inference.cli import app

if __name__ == "__main__":
    app(prog_name="python -m thinkrec_inference")
