# SPDX-License-Identifier: Apache-2.0
"""The HTTP front: retrieval from the bundle's vectors, scoring and reasons through Triton, durable feedback events.

Belongs here: what a recommendation service answers over HTTP. Does not: torch, prompts, gates (the engine), Triton's
wire format (`thinkrec_inference.client`). Nothing outside this package imports it except the command line.
"""
