# SPDX-License-Identifier: Apache-2.0
"""Start the operator process: `python -m thinkrec_operator`."""

from __future__ import annotations

import sys

from thinkrec_operator.cluster.main import main

sys.exit(main())
