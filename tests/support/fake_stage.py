# SPDX-License-Identifier: Apache-2.0
"""A stage process of known behaviour that speaks the stage protocol: `fake_stage.py STAGE_JSON`.

It stands where the trainer's process stands, written from the protocol with the standard library alone, so that it
starts in milliseconds and shares no code with what it tests. FAKE_STAGE_CONTROL names a folder; the file `<stage name>`
in it says what happens, one word and a number: `sleep 2`, `exit 64`, `fail-times 2`, `hang 0`, `deaf 0` (ignores
SIGTERM), `memory 200` (MiB), `silent 0` (no termination message). Every start is noted in `<stage name>.starts` there.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

AUC = 0.7
GROUPS = 3


def main(path: Path) -> int:
    """Run one stage; return its exit code."""
    spec = json.loads(path.read_bytes())
    control = Path(os.environ["FAKE_STAGE_CONTROL"])
    order = control / spec["name"]
    word, number = order.read_text().split() if order.is_file() else ("go", "0")
    signal.signal(signal.SIGTERM, signal.SIG_IGN if word == "deaf" else _interrupted)
    starts = control / f"{spec['name']}.starts"
    with starts.open("a") as handle:
        handle.write(f"{spec['key']} {spec['compute']['threads']} {os.environ['OMP_NUM_THREADS']} {os.getcwd()}\n")
    code = _behave(spec, word, float(number), len(starts.read_text().splitlines()))
    if code:
        _report(spec, error=f"{spec['name']} was told to end with {code}")
    elif word != "silent":
        _publish(spec)
    return code


def _behave(spec: dict[str, Any], word: str, number: float, starts: int) -> int:
    if word == "exit":
        return int(number)
    if word == "fail-times":
        return int(starts <= number)
    if word == "memory":
        ballast = bytearray(int(number) << 20)
        ballast[::4096] = b"x" * len(ballast[::4096])
    seconds = number if word == "sleep" else 600 if word in ("hang", "deaf", "memory") else 0
    until = time.monotonic() + seconds
    progress = {"event": "progress", "stage": spec["kind"], "key": spec["key"], "step": 1, "total": 4, "etaSeconds": 3}
    while time.monotonic() < until:
        sys.stdout.write(json.dumps(progress) + "\n")
        sys.stdout.flush()
        time.sleep(0.05)
    return 0


def _interrupted(number: int, frame: FrameType | None) -> None:
    raise SystemExit(143)


def _publish(spec: dict[str, Any]) -> None:
    metrics = {"auc": AUC, "uauc": AUC, "ndcg@5": AUC, "map@5": AUC} if spec["kind"] == "evaluate" else {}
    metrics |= _compared(spec["parameters"]) if spec["kind"] == "compare" else {}
    metrics |= _looked_at(spec["parameters"]["number"]) if spec["kind"] == "analyse" else {}
    counts = {"groups": GROUPS} if spec["kind"] == "gate" else {}
    lineage = {"codeVersion": "test", "seed": spec["seed"], "createdTime": "2026-01-01T00:00:00Z"}
    manifest = {
        "kind": spec["kind"],
        "key": spec["key"],
        "semanticsVersion": spec["semanticsVersion"],
        "files": [],
        "metrics": metrics,
        "counts": counts,
        "lineage": {**lineage, "durationSeconds": 0, "device": "cpu", "precision": "Float32"},
    }
    content = json.dumps(manifest).encode()
    folder = Path(spec["outputUri"].removeprefix("file:"))
    folder.mkdir(parents=True, exist_ok=True)
    scratch = folder / f".{os.getpid()}"
    scratch.write_bytes(content)
    scratch.rename(folder / "manifest.json")
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    _report(spec, digest=digest, uri=spec["outputUri"], metrics=metrics, counts=counts)


def _compared(given: dict[str, Any]) -> dict[str, float]:
    """Return numbers in which each variant is 0.02 better than the one before it, beyond doubt."""
    found: dict[str, float] = {}
    control = given["variants"].index(given["control"])
    for metric in (name.lower() for name in given["metrics"]):
        for place in range(len(given["variants"])):
            found |= {f"{place}/{metric}": AUC + 0.02 * place}
            gain = 0.02 * (place - control)
            numbers = {"": gain, "/lower": gain - 0.01, "/upper": gain + 0.01, "/p": 0.001}
            found |= {f"{place}/{metric}/effect{name}": value for name, value in numbers.items() if place != control}
    return found


def _looked_at(number: int) -> dict[str, float]:
    """Return a look at users who come 300 a look, of whom 1 000 are enough to see that the second variant is better."""
    users = 300.0 * number
    found = {"void": 0.0, "unavailable": 0.0, "0/users": users, "1/users": users, "enough": float(users >= 1000)}
    if users < 1000:
        return found
    effect = {"": 0.1, "/lower": 0.05, "/upper": 0.15, "/p": 0.001, "/significant": 1.0, "/better": 1.0}
    return found | {"winner": 1.0} | {f"1/m0/effect{name}": value for name, value in effect.items()}


def _report(spec: dict[str, Any], **fields: Any) -> None:
    body = {"key": spec["key"], "kind": spec["kind"], **fields}
    Path(os.environ["THINKREC_TERMINATION_PATH"]).write_text(json.dumps(body))


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1])))
