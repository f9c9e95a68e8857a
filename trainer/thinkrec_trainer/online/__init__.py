# SPDX-License-Identifier: Apache-2.0
"""What the stage `analyse` is made of: from the event log to one look at an experiment's users.

    sources      where the events lie: a store, or simulated ones in artifacts
    quantities   the manifest's metrics and guardrails as columns of a table of users
    users        the users of one part of the log, one row each (Polars, streaming)
    mirrored     the same of a Mirror, and how its variants' answers differ from control's
    groups       which expert's group a user is in
    moments      sums over users, by bucket
    weights      which buckets no weight ever moved, and whose they are
    gathered     what one pod learned of its users; adds up, goes through a file
    gathering    all of a pod's parts, one after the other
    prometheus   one value from Prometheus;  readings: all that are asked of it, held against bounds
    plan         the manifest's settings as the statistics read them
    verdict      sums and readings -> what is known now;  mirror_verdict: the same of a Mirror
    told         the statistics' answers in the contract's words
    findings     what is known now + the looks before -> findings.json;  older: which look nobody needs any more
    sentences    what happened, in words;  figures: drawn;  page: both, and every number

The statistics are in `analysis/`: pure, and without any of this.
"""
