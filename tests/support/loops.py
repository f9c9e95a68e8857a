# SPDX-License-Identifier: Apache-2.0
"""What helpers with an event loop in a thread of their own do at their end."""

from __future__ import annotations

import gc
import warnings


def collect_sockets() -> None:
    """Collect the connections that an ended loop could not close: the API server went away in the middle of them.

    Otherwise they warn later, in whatever test happens to run then.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()
