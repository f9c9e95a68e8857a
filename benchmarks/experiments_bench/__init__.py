# SPDX-License-Identifier: Apache-2.0
"""Parts of benchmarks/experiments.py.

populations   users of known behaviour: rare conversions, heavy tails, ratios, earlier behaviour
follow        thousands of experiments, each analysed at every look
without       no effect: how often is there a winner
effects       known effects: power, coverage, when it stops, what CUPED saves
boundaries    the mixture beside the delayed-start boundary, on Brownian motion
growing       users' values grow while they are in
adversaries   bots, late events, duplicates, variants that say nothing
switching     weights change and users with them
proportions   sample-ratio alarms
report        shares with intervals, tables, JSON
"""
