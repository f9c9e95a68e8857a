# SPDX-License-Identifier: Apache-2.0
"""The gateways' feedback and exposures: from segments in a folder to typed tables in the store, and back as LazyFrames.

    layout    names in the store, columns of the tables, which part of 16 a user is in
    segment   one segment -> tables and the lines that are none
    ship      `python -m thinkrec_trainer ship-events`: folder -> store, again and again, whatever is killed or away
    read      a time range of some parts -> events and exposures, each once, as LazyFrames
    compact   many small tables of an hour and part -> one

The gateway's side, and what a segment is: `thinkrec_crds.event_log`. Statistics of experiments are not made here.
"""
