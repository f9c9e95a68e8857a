# SPDX-License-Identifier: Apache-2.0
"""The HTTP front: retrieval from the bundle's vectors, scoring and reasons through Triton, durable feedback events.

    app         puts it together
    routes      parse, ask, answer;  schemas: every body, with limits and examples
    recommend   from a user to a ranking with reasons;  retrieval: its candidates
    events      feedback on disk before it is acknowledged; segments, known_ids: its files and its memory
    routing     within experiments: assign, ask the variant, control for one that fails, tell of it
    assignment  which variant a request belongs to;  traffic_file: the experiments in force
    forwarding  asks another variant's gateway;  mirroring: copies of requests, and how the answers differ
    errors      every failure as one ErrorBody;  limits: bodies too big, every request measured
    metrics     Prometheus names

Belongs here: what a recommendation service answers over HTTP. Does not: torch, prompts, gates (the engine), Triton's
wire format (`thinkrec_inference.client`). Nothing outside this package imports it except the command line.
"""
