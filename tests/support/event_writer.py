# SPDX-License-Identifier: Apache-2.0
"""A process that appends events to a real log from several threads and tells which ones were acknowledged.

    PYTHONPATH=tests python -m support.event_writer FOLDER ROUND

It waits for a line on standard input before it opens the log. Each acknowledged request is one line of event ids on
standard output, written in one piece. It goes on until it is killed.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

from thinkrec_crds.event_log import Exposure
from thinkrec_inference.gateway.events import EventLog
from thinkrec_inference.gateway.schemas import Event

THREADS = 4


def exposure(number: int) -> Exposure:
    """Return some exposure; they ride along with the feedback."""
    return Exposure.model_validate(
        {
            "exposureId": f"x{number}",
            "experiment": "u1",
            "variant": "new",
            "userId": f"user-{number % 50}",
            "bucket": 7,
            "weights": "control=50,new=50",
            "servedBy": "new",
            "revision": "new-1",
            "at": "2026-11-28T13:00:00Z",
            "latencyMilliseconds": 12.5,
        }
    )


def feedback(event_id: str, number: int) -> Event:
    """Return one event; its size varies, so that a kill can cut it anywhere."""
    item = "i" * (1 + number * 37 % 200)
    return Event.model_validate({"eventId": event_id, "userId": f"user-{number % 50}", "itemId": item, "type": "Like"})


def write_forever(log: EventLog, name: str) -> None:
    """Append requests of one to three events until the process is killed."""
    number = 0
    while True:
        ids = [f"{name}-{number}-{part}" for part in range(1 + number % 3)]
        log.offer(exposure(number))
        log.append([feedback(event_id, number) for event_id in ids])
        os.write(1, (" ".join(ids) + "\n").encode())
        number += 1


def main() -> None:
    """Wait for the start, then write."""
    folder, name = Path(sys.argv[1]), sys.argv[2]
    sys.stdin.readline()
    log = EventLog(folder, segment_bytes=200_000)
    threads = [threading.Thread(target=write_forever, args=(log, f"{name}.{each}")) for each in range(THREADS)]
    for thread in threads:
        thread.start()


if __name__ == "__main__":
    main()
