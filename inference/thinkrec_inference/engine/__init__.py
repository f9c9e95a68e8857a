# SPDX-License-Identifier: Apache-2.0
"""The engine: one base model, all experts stacked, gates per token, one prefix per user.

What belongs here: the mathematics of scoring and explaining, from token ids to fp32 scores. What does not: Triton,
HTTP, the artifact store, training. The trainer imports these modules too (docs/adr/0001), so an offline metric is a
metric of the served code. Bottom up:

    errors          what can be wrong with a base model, a bundle, a request
    device          device, precision and threads
    base_model      base model and tokenizer;  digests: of their files;  gguf: converts GGUF once
    tokens          prompt segments -> token ids and soft-slot positions
    collaborative   CF vectors and biases;  projector: their soft tokens
    gate            CF vector -> slot weights
    lora            the stacked, gated low-rank adapters
    attention       packed ragged attention over shared prefixes;  packed: forward passes through it
    kv_pool         prefix keys and values of returning users
    scorer          jobs on indices -> scores;  decoding: reasons from the same keys and values
    bundle          a bundle folder in memory;  golden: does it score as stored
    engine          requests on ids, and the swap of bundles
"""
