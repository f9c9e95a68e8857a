# SPDX-License-Identifier: Apache-2.0
"""Serving: one process that owns the weights, Triton models that are thin shims over it, and the HTTP gateway.

    engine/             the mathematics, a library (torch; no HTTP, no Triton)
    server, scheduler   the engine process: HTTP over a Unix socket, one worker thread for torch
    triton_shim         what the Triton models run: tensors <-> the engine's messages
    client              the only module that speaks Triton's protocol from outside
    gateway/            what callers see: recommend, score, events
    supervisor          starts engine -> Triton -> gateway, ends them in the opposite order

Importing this package imports none of them; Triton's stub must start without torch.
"""
