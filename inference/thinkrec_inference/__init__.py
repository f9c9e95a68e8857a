# SPDX-License-Identifier: Apache-2.0
"""Serving: one process that owns the weights, Triton models that are thin shims over it, and the HTTP gateway.

    cli                 `python -m thinkrec_inference serve`, `engine`, `gateway`
    engine/             the mathematics, a library (torch; no HTTP, no Triton)
    server, scheduler   the engine process: HTTP over a Unix socket, one worker thread for torch
    engine_port         joins the two: loading, token costs, batched writing;  engine_metrics: its Prometheus names
    triton_shim         what the Triton models run: tensors <-> the engine's messages
    client              the only module that speaks Triton's protocol from outside
    gateway/            what callers see: recommend, score, explain, events;  settings: from the environment
    refusal             the one exception that crosses every hop
    supervisor          starts engine -> Triton -> gateway, ends them in the opposite order
    processes           children that cannot outlive their parent;  triton_launcher: finds and starts Triton

Importing this package imports none of them; Triton's stub must start without torch.
"""
