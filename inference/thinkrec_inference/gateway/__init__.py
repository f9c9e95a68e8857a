# SPDX-License-Identifier: Apache-2.0
"""The HTTP front: retrieval from the bundle's vectors, scoring and reasons through Triton, durable feedback events.

    app         puts it together
    routes      parse, ask, answer;  schemas: every body, with limits and examples
    recommend   from a user to a ranking with reasons;  retrieval: its candidates
    events      feedback on disk before it is acknowledged; segments, known_ids: its files and its memory
    assignment  which variant of an experiment a request belongs to
    errors      every failure as one ErrorBody;  limits: bodies too big, every request measured
    metrics     Prometheus names

Belongs here: what a recommendation service answers over HTTP. Does not: torch, prompts, gates (the engine), Triton's
wire format (`thinkrec_inference.client`). Nothing outside this package imports it except the command line.
"""
