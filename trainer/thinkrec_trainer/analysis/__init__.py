# SPDX-License-Identifier: Apache-2.0
"""The statistics of online experiments: from sums over users to effects with intervals. Pure: no events, files, clock.

    sums              what is kept of a variant's users: counts, means, centred squares and products; shards add up
    winsorize         caps of a user's value, against bots
    estimates         means, shares and ratios with their variance (delta method), and differences of two variants
    cuped             less variance by what users did before the experiment
    floors            variances that are too small because too little was seen
    sequences         intervals and p-values that allow looking at any time
    fixed             the test of one planned look
    ratio_mismatch    users did not arrive in the stated proportion
    correction        several variants and metrics
    results           what goes in (Plan) and what comes out (Findings)
    analyse           all of it in one function

The simulations that show what these intervals are worth: `python benchmarks/experiments.py`.
"""
