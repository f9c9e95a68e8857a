# SPDX-License-Identifier: Apache-2.0
"""Triton model `thinkrec_explain`: a shim; what it does is in thinkrec_inference.triton_shim."""

from __future__ import annotations

from typing import Any

import triton_python_backend_utils as pb_utils  # exists inside Triton's stub only

from thinkrec_inference.triton_shim import ExplainShim


class TritonPythonModel:
    """The class that Triton looks for."""

    def initialize(self, args: dict[str, str]) -> None:
        """Wait for the engine and check the numbers; an exception here keeps the model from becoming ready."""
        self.shim = ExplainShim(pb_utils)

    def execute(self, requests: list[Any]) -> None:
        """Start one stream per request and return at once."""
        self.shim.execute(requests)

    def finalize(self) -> None:
        """Release the connection when the model is unloaded."""
        self.shim.close()
