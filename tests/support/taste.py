# SPDX-License-Identifier: Apache-2.0
"""Simulated users of known taste: each comes once, looks at what is recommended, and clicks if it is to their taste.

What they like is known by the revision that answered, so the truth that an experiment shall find is known too.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx

CLICKS_IF_LIKED, CLICKS_OTHERWISE = 0.9, 0.1
USERS_EFFECT = CLICKS_IF_LIKED - CLICKS_OTHERWISE
"""Difference in the share of users who click between what they like and what they do not."""
THREADS = 2
PAUSE_SECONDS = 0.2
"""The machine has other things to do: pods that are to be analysed and rolled out share its CPUs."""


class Users:
    """A context manager; while it is open, new users come one after another."""

    def __init__(self, url: str, *, likes: Callable[[str], bool], name: str = "user") -> None:
        self.generations: Counter[str] = Counter()
        """Generation of the bundle that answered -> users."""
        self.failures: list[str] = []
        self._url = url
        self._likes = likes
        self._name = name
        self._next = 0
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, name=f"users-{n}", daemon=True) for n in range(THREADS)]

    def __enter__(self) -> Users:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(90)

    def told(self) -> str:
        """Return what has happened so far."""
        return f"{dict(self.generations)} users by what answered, {len(self.failures)} failures: {self.failures[:3]}"

    def _run(self) -> None:
        with httpx.Client(base_url=self._url, timeout=60, trust_env=False) as http:
            while not self._stop.wait(PAUSE_SECONDS):
                with self._lock:
                    number, self._next = self._next, self._next + 1
                try:
                    self._visit(http, f"{self._name}-{number}", number)
                except httpx.HTTPError as error:
                    self.failures.append(f"{type(error).__name__}: {error}")

    def _visit(self, http: httpx.Client, user: str, number: int) -> None:
        answer = http.post("/v1/recommend", json={"userId": user, "k": 2}, headers={"x-user": user})
        if answer.status_code != 200:
            self.failures.append(f"{answer.status_code}: {answer.text[:200]}")
            return
        body: dict[str, Any] = answer.json()
        generation = body["generation"]
        with self._lock:
            self.generations[generation] += 1
        chance = CLICKS_IF_LIKED if self._likes(generation) else CLICKS_OTHERWISE
        if number * 0.6180339887 % 1 >= chance:  # evenly spread, and the same in every run
            return
        click = {"eventId": f"click-{user}", "userId": user, "itemId": body["items"][0]["itemId"], "type": "click"}
        stored = http.post("/v1/events", json={"events": [click]})
        if stored.status_code != 200:
            self.failures.append(f"{stored.status_code}: {stored.text[:200]}")
