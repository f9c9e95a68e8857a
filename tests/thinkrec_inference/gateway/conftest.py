# SPDX-License-Identifier: Apache-2.0
"""A gateway in this process over the small bundle; Triton's place is taken by a scorer that answers at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from support.direct_scorer import DirectScorer
from support.small_bundle import write_small_bundle
from thinkrec_inference.gateway.app import create_app, open_log
from thinkrec_inference.gateway.recommend import Recommender
from thinkrec_inference.gateway.retrieval import Catalogue, load_catalogue
from thinkrec_inference.settings import GatewaySettings

Gateway = Callable[..., TestClient]


@pytest.fixture(scope="session")
def small_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="session")
def catalogue(small_bundle: Path) -> Catalogue:
    return load_catalogue(small_bundle)


@pytest.fixture
def scorer() -> DirectScorer:
    return DirectScorer()


@pytest.fixture
def gateway(catalogue: Catalogue, small_bundle: Path, scorer: DirectScorer, tmp_path: Path) -> Iterator[Gateway]:
    """Start a gateway with the given settings; the defaults are small limits."""
    started: list[TestClient] = []

    def start(**settings: Any) -> TestClient:
        events = tmp_path / "events"
        chosen = {"max_candidates": 5, "max_body_bytes": 4096, "retrieve_factor": 2, **settings}
        made = GatewaySettings(bundle_dir=small_bundle, events_dir=events, **chosen)
        client = TestClient(create_app(Recommender(catalogue, scorer, made), open_log(made)))
        started.append(client.__enter__())
        return client

    yield start
    for client in started:
        client.__exit__(None, None, None)
