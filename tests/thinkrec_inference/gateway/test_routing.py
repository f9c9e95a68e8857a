# SPDX-License-Identifier: Apache-2.0
"""Recommendations within experiments, with real gateways and real failures: what callers get, what is recorded."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from scipy.stats import chisquare

from support.direct_scorer import DirectScorer
from support.http_servers import Script, scripted, serving
from thinkrec_crds.buckets import BUCKETS
from thinkrec_crds.engine_api import ScoreRequest, ScoreResponse
from thinkrec_crds.event_log import Exposure
from thinkrec_crds.traffic import TrafficExperiment, TrafficTable
from thinkrec_inference.gateway.app import create_app, open_log
from thinkrec_inference.gateway.assignment import Assigner
from thinkrec_inference.gateway.forwarding import DEADLINE_HEADER, ROUTED_HEADER, given_deadline
from thinkrec_inference.gateway.recommend import EXPLAIN_RESERVE_SECONDS, Recommender
from thinkrec_inference.gateway.retrieval import Catalogue
from thinkrec_inference.gateway.routing import Call, plan
from thinkrec_inference.gateway.schemas import RecommendRequest
from thinkrec_inference.settings import GatewaySettings

Gateway = Callable[..., TestClient]
Route = Callable[..., "Routed"]
USERS = [f"user-{number}" for number in range(40)]
OWN, OTHER = "sha256:" + "0" * 64, "sha256:other"


class OtherScorer(DirectScorer):
    """Another revision: it ranks the other way round, and says that it is another one."""

    def __init__(self) -> None:
        super().__init__()
        self.engine.generation = OTHER

    async def score(self, request: ScoreRequest, *, timeout_seconds: float | None = None) -> ScoreResponse:
        answer = await super().score(request, timeout_seconds=timeout_seconds)
        return answer.model_copy(update={"scores": tuple(-score for score in answer.scores)})


def variant(name: str, weight: int, url: str | None = None, *, ready: bool = True) -> dict[str, Any]:
    body = {"name": name, "revision": f"{name}-1", "weight": weight, "ready": ready, "url": url}
    return {key: value for key, value in body.items() if value is not None}


def experiment(*variants: dict[str, Any], **changes: Any) -> TrafficExperiment:
    body = {"uid": "u1", "name": "fusion", "mode": "ABTest", "control": "control", "variants": variants, **changes}
    return TrafficExperiment.model_validate(body)


class Routed:
    """A gateway with experiments, and its log."""

    def __init__(self, client: TestClient, folder: Path, table: TrafficTable) -> None:
        self.client = client
        self.folder = folder
        self.assigners = [Assigner.of(each) for each in table.experiments]

    def ask(self, user: str, headers: dict[str, str] | None = None, **body: Any) -> Any:
        return self.client.post("/v1/recommend", json={"userId": user, "k": 2, **body}, headers=headers)

    def user_of(self, name: str) -> str:
        """Return a user of that variant in the first experiment."""
        return next(user for user in USERS if self.assigners[0].assign(user).variant.name == name)

    def exposures(self, count: int) -> list[Exposure]:
        """Return the recorded exposures once there are `count`, oldest first."""
        deadline = time.monotonic() + 10
        while True:
            lines = [line for path in sorted(self.folder.glob("*.jsonl")) for line in path.read_text().splitlines()]
            found = [Exposure.from_json(line) for line in lines if '"Exposure"' in line]
            if len(found) >= count or time.monotonic() > deadline:
                assert len(found) == count
                return found
            time.sleep(0.05)


@pytest.fixture
def route(gateway: Gateway, tmp_path: Path) -> Route:
    def start(*experiments: TrafficExperiment, **settings: Any) -> Routed:
        table = TrafficTable(experiments=experiments)
        (tmp_path / "traffic.json").write_text(table.to_json())
        client = gateway(traffic_file=tmp_path / "traffic.json", **settings)
        return Routed(client, tmp_path / "events", table)

    return start


@pytest.fixture
def other(catalogue: Catalogue, small_bundle: Path, tmp_path: Path) -> Iterator[tuple[str, Callable[[], None]]]:
    """Another revision's real gateway: its address, and how to stop it."""
    folder = tmp_path / "other-events"
    settings = GatewaySettings(bundle_dir=small_bundle, events_dir=folder, max_candidates=5, retrieve_factor=2)
    with serving(create_app(Recommender(catalogue, OtherScorer(), settings), open_log(settings))) as running:
        yield running


@pytest.fixture
def script() -> Iterator[tuple[str, Script]]:
    with scripted() as running:
        yield running


class TestAssigned:
    def test_each_user_is_answered_by_the_variant_of_the_hash_and_that_is_recorded(
        self, route: Route, other: tuple[str, Any]
    ) -> None:
        routed = route(experiment(variant("control", 50), variant("new", 50, other[0])))
        answers = {user: routed.ask(user).json() for user in USERS}
        seen = {exposure.user_id: exposure for exposure in routed.exposures(len(USERS))}
        names = Counter()  # type: Counter[str]
        for user, answer in answers.items():
            assigned = routed.assigners[0].assign(user)
            names[assigned.variant.name] += 1
            assert answer["generation"] == (OTHER if assigned.variant.name == "new" else OWN)
            assert (seen[user].variant, seen[user].bucket) == (assigned.variant.name, assigned.bucket)
        assert min(names["control"], names["new"]) > 10
        one = seen[routed.user_of("new")]
        assert (one.experiment, one.served_by, one.revision, one.weights) == ("u1", "new", "new-1", "control=50,new=50")
        assert (one.fallback, one.fallback_reason, one.degraded, one.error, one.empty) == (
            False,
            None,
            False,
            False,
            False,
        )
        assert 0 < one.latency_milliseconds < 5000
        assert len({exposure.exposure_id for exposure in seen.values()}) == len(USERS)

    def test_an_answer_is_passed_on_in_the_callers_case(self, route: Route, other: tuple[str, Any]) -> None:
        routed = route(experiment(variant("control", 0), variant("new", 100, other[0])))
        answer = routed.client.post("/v1/recommend", json={"user_id": "ann", "k": 2}).json()
        assert (answer["user_id"], answer["generation"]) == ("ann", OTHER)
        assert [item["item_id"] for item in answer["items"]] == ["i2", "i3"]

    def test_the_assigned_variants_errors_are_its_own(self, route: Route, other: tuple[str, Any]) -> None:
        routed = route(experiment(variant("control", 0), variant("new", 100, other[0])))
        answer = routed.ask("ann", candidates=["nothing"])
        assert (answer.status_code, answer.json()["field"]) == (404, "candidates")
        (seen,) = routed.exposures(1)
        assert (seen.served_by, seen.error, seen.fallback) == ("new", True, False)

    def test_controls_errors_are_recorded_too(self, route: Route) -> None:
        routed = route(experiment(variant("control", 100), variant("new", 0)))
        assert routed.ask("all").status_code == 404, "this user has seen every item"
        (seen,) = routed.exposures(1)
        assert (seen.variant, seen.error, seen.empty) == ("control", True, True)

    def test_a_forwarded_request_is_not_assigned_again(self, route: Route, script: tuple[str, Script]) -> None:
        routed = route(experiment(variant("control", 0), variant("new", 100, script[0])))
        assert routed.ask("ann", {ROUTED_HEADER: "1"}).json()["generation"] == OWN
        assert script[1].requests == []
        assert routed.ask("ann").status_code == 200
        ((headers, body),) = script[1].requests
        assert headers[ROUTED_HEADER] == "1"
        assert 8000 < int(headers[DEADLINE_HEADER]) < 10_000, "the variant's share of ten seconds"
        assert json.loads(body) == {"userId": "ann", "k": 2}
        assert len(routed.exposures(1)) == 1

    def test_a_change_of_the_file_is_followed_without_a_restart(self, route: Route, tmp_path: Path) -> None:
        routed = route(experiment(variant("control", 50), variant("new", 50)))
        table = TrafficTable(experiments=(experiment(variant("control", 100), variant("new", 0)),))
        (tmp_path / "traffic.json").write_text(table.to_json())
        deadline, count = time.monotonic() + 10, 0
        while True:
            routed.ask("ann")
            count += 1
            if routed.exposures(count)[-1].weights == "control=100,new=0":
                break
            assert time.monotonic() < deadline

    def test_without_experiments_nothing_is_recorded(self, gateway: Gateway, tmp_path: Path) -> None:
        assert gateway().post("/v1/recommend", json={"userId": "ann", "k": 2}).status_code == 200
        assert list((tmp_path / "events").glob("*.jsonl")) == []


class TestFallback:
    @pytest.mark.parametrize(
        ("status", "content", "seconds"),
        [(503, b"{}", 0.0), (500, b"oops", 0.0), (429, b"{}", 0.0), (200, b"no json", 0.0), (200, b"{}", 3.0)],
    )
    def test_control_answers_for_a_variant_that_fails(
        self, route: Route, script: tuple[str, Script], status: int, content: bytes, seconds: float
    ) -> None:
        url, does = script
        does.status, does.content, does.seconds = status, content, seconds
        routed = route(experiment(variant("control", 0), variant("new", 100, url)), deadline_milliseconds=1000)
        answer = routed.ask("ann")
        assert (answer.status_code, answer.json()["generation"]) == (200, OWN)
        (seen,) = routed.exposures(1)
        assert (seen.variant, seen.served_by, seen.revision) == ("new", "control", "control-1")
        assert (seen.fallback, seen.fallback_reason, seen.error) == (True, "Failed", False)
        assert (
            'thinkrec_gateway_fallbacks_total{reason="Failed",variant="new"} 1.0' in routed.client.get("/metrics").text
        )

    def test_users_of_a_variant_that_is_not_ready_get_control_and_it_is_not_asked(
        self, route: Route, script: tuple[str, Script]
    ) -> None:
        routed = route(experiment(variant("control", 50), variant("new", 50, script[0], ready=False)))
        assert {routed.ask(user).json()["generation"] for user in USERS} == {OWN}
        assert script[1].requests == []
        for seen in routed.exposures(len(USERS)):
            assert (seen.served_by, seen.degraded) == ("control", True)
            assert seen.fallback_reason == ("NotReady" if seen.variant == "new" else None)

    def test_no_request_fails_while_a_variants_pod_goes_away(
        self, route: Route, other: tuple[str, Callable[[], None]]
    ) -> None:
        url, stop = other
        routed = route(experiment(variant("control", 0), variant("new", 100, url)))
        generations = []

        def ask() -> None:
            answer = routed.ask("ann")
            assert answer.status_code == 200
            generations.append(answer.json()["generation"])

        ask()
        stopping = threading.Thread(target=stop)
        stopping.start()
        while stopping.is_alive():
            ask()
        ask()
        assert generations[0] == OTHER
        assert generations[-1] == OWN
        by_variant = [seen.served_by == "new" for seen in routed.exposures(len(generations))]
        assert by_variant == [generation == OTHER for generation in generations]

    def test_a_control_elsewhere_that_is_away_is_a_503_with_a_reason(
        self, route: Route, script: tuple[str, Script]
    ) -> None:
        routed = route(experiment(variant("control", 100, "http://127.0.0.1:9"), variant("new", 0)))
        answer = routed.ask("ann")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert "variant control gave no answer" in answer.json()["error"]
        assert routed.exposures(1)[0].error


class TestLayers:
    """Two experiments over the same users, each with a variant at an address of its own."""

    def assigners(self) -> list[Assigner]:
        halves = variant("control", 50), variant("new", 50, "http://one")
        shares = variant("control", 70), variant("new", 30, "http://two")
        return [Assigner.of(experiment(*halves)), Assigner.of(experiment(*shares, uid="u2", name="layer"))]

    @staticmethod
    def call(user: str) -> Call:
        return Call(RecommendRequest(user_id=user), b"")

    def test_the_first_experiment_that_moves_a_user_decides(self) -> None:
        assigners = self.assigners()
        seen = Counter()  # type: Counter[tuple[bool, bool, str | None]]
        for number in range(400):
            chosen = plan(assigners, self.call(str(number)))
            first, second = (layer.moves for layer in chosen.layers)
            seen[first, second, chosen.server.url] += 1
        assert set(seen) == {
            (False, False, None),
            (True, False, "http://one"),
            (False, True, "http://two"),
            (True, True, "http://one"),
        }

    def test_an_experiment_learns_only_from_users_whom_no_other_one_moved_and_its_shares_stay_right(self) -> None:
        assigners = self.assigners()
        layers = [plan(assigners, self.call(str(number))).layers for number in range(20_000)]
        for index, assigner in enumerate(assigners):
            clean = [both[index] for both in layers if not both[index].mixed]
            assert all(not both[1 - index].moves for both in layers if not both[index].mixed)
            names = Counter(layer.assigned.variant.name for layer in clean)
            expected = [len(clean) * count / BUCKETS for count in assigner.counts.values()]
            assert chisquare([names[name] for name in assigner.counts], expected).pvalue > 0.001

    def test_what_they_have_mixed_is_recorded_as_such(self, route: Route, other: tuple[str, Any]) -> None:
        one = experiment(variant("control", 0), variant("new", 100, other[0]))
        two = experiment(variant("control", 100), variant("new", 0), uid="u2", name="layer")
        routed = route(one, two)
        routed.ask("ann")
        first, second = routed.exposures(2)
        assert (first.experiment, first.variant, first.fallback) == ("u1", "new", False)
        assert (second.experiment, second.variant, second.served_by) == ("u2", "control", "new")
        assert (second.fallback, second.fallback_reason) == (True, "OtherExperiment")


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, 10.0),
        ({DEADLINE_HEADER: "500"}, 10.0),
        ({ROUTED_HEADER: "1"}, 10.0),
        ({ROUTED_HEADER: "1", DEADLINE_HEADER: "500"}, 0.5),
        ({ROUTED_HEADER: "1", DEADLINE_HEADER: "99999"}, 10.0),
        ({ROUTED_HEADER: "1", DEADLINE_HEADER: "0"}, 0.01),
        ({ROUTED_HEADER: "1", DEADLINE_HEADER: "-5"}, 10.0),
        ({ROUTED_HEADER: "1", DEADLINE_HEADER: "soon"}, 10.0),
        ({ROUTED_HEADER: "1", DEADLINE_HEADER: "9" * 5000}, 10.0),
    ],
)
def test_a_forwarded_request_brings_its_deadline(headers: dict[str, str], seconds: float) -> None:
    assert given_deadline(headers, 10.0) == seconds


def test_reasons_are_cut_at_the_deadline_that_was_forwarded(gateway: Gateway, scorer: DirectScorer) -> None:
    scorer.seconds_per_event = 0.3
    body = {"userId": "ann", "k": 2, "explain": True}
    answer = gateway().post("/v1/recommend", json=body, headers={ROUTED_HEADER: "1", DEADLINE_HEADER: "600"})
    assert answer.json()["items"][0]["finishReason"] == "cancelled"
    limits = [asked.max_seconds for asked in scorer.explained]
    assert limits
    assert all(limit is not None and limit <= 0.6 - EXPLAIN_RESERVE_SECONDS for limit in limits)
