# SPDX-License-Identifier: Apache-2.0
"""The one error of this package."""

from __future__ import annotations


class ClusterError(Exception):
    """What was wrong and what to do about it; the command prints it without a traceback."""
