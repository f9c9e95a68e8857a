# SPDX-License-Identifier: Apache-2.0
"""The whole way on a real node: chart, manifest, training in containers, artifacts in S3, Triton, recommendations.

Then what a team does next: new data, a gate that fails, a rollback, each while requests keep coming. The manifest is
the example with the addresses of a cluster; a random two-layer Llama and a few users keep it short. The tests of this
module tell one story and stand in its order.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import httpx
import pytest
import yaml

from embedded_cluster import dependencies, images, mounted_environment
from embedded_cluster.api import Api
from embedded_cluster.cluster import Cluster
from support import chart, kube, seaweed
from support.load import Load
from support.models import condition, models_path
from support.taste import USERS_EFFECT, Users
from support.waiting import wait_for
from thinkrec_crds.stage_kinds import EXPERIMENT_KINDS

pytestmark = pytest.mark.timeout(1800)

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "movielens-cluster"
TRAINING_SECONDS = 900
ROLLOUT_SECONDS = 300
EXPERIMENT_SECONDS = 420
SMALL: dict[str, Any] = {
    "dataset": {"limits": {"maxUsers": 40}, "historyLength": 4},
    "collaborative": {"dimension": 8, "epochs": 2},
    "teacher": {"maxTokens": 16, "maxRounds": 1},
    "traces": {"poolSize": 16, "maxSamples": 2},
    "adapter": {"steps": 2, "historyBlock": 4, "warmupSteps": 0},
    "projector": {"steps": 2},
    "experts": {"steps": 1},
    "evaluation": {"maxUsers": 6, "maxRowsPerUser": 3, "sampledExplanations": 2},
    "serving": {"limits": {"maxExplanationTokens": 16}},
}


@dataclass
class World:
    """A cluster with the chart installed and one model applied."""

    cluster: Cluster
    namespace: str
    store: Any
    folder: Path
    first_revision: str = ""
    second_revision: str = ""
    first_generation: str = ""
    """Of the answers of the first revision."""

    @property
    def api(self) -> Api:
        return self.cluster.api

    @property
    def path(self) -> str:
        return f"{models_path(self.namespace)}/movielens"

    @property
    def url(self) -> str:
        """Return the address of the model's Service."""
        service = self.api.get(f"/api/v1/namespaces/{self.namespace}/services/movielens")
        return f"http://{service['spec']['clusterIP']}"

    def model(self) -> dict[str, Any]:
        return self.api.get(self.path)

    def kubectl(self, *arguments: str) -> str:
        environment = {**os.environ, "KUBECONFIG": str(self.cluster.kubeconfig)}
        done = subprocess.run(
            ["kubectl", "--namespace", self.namespace, *arguments], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def apply(self, **spec: Any) -> None:
        """Apply the example with a few members of its spec changed, as an overlay in Git would."""
        overlay = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "namespace": self.namespace,
            "resources": [os.path.relpath(EXAMPLE, self.folder)],
            "patches": [{"target": {"kind": "ThinkRecModel"}, "patch": yaml.safe_dump(_patch(self, spec))}],
        }
        (self.folder / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
        self.kubectl("apply", "--server-side", "-k", str(self.folder))

    def wait_ready(self, seconds: float) -> dict[str, Any]:
        """Wait until the newest spec is in force."""

        def ready() -> bool:
            model = self.model()
            if model["status"]["observedGeneration"] != model["metadata"]["generation"]:
                return False
            stalled = condition(model, "Stalled", "message")
            assert not stalled, f"stalled: {stalled}"
            return condition(model, "Ready") == "True"

        wait_for(ready, f"the model to be Ready: {self.model().get('status')}", seconds=seconds, every=1)
        return self.model()

    def recommend(self) -> dict[str, Any]:
        """Ask the Service for one user's ranking."""
        answer = httpx.post(f"{self.url}/v1/recommend", json={"userId": "1", "k": 3}, timeout=60, trust_env=False)
        assert answer.status_code == 200, answer.text
        body: dict[str, Any] = answer.json()
        return body


def _patch(world: World, spec: dict[str, Any]) -> dict[str, Any]:
    cpus = {"requests": {"cpu": "300m", "memory": "1Gi"}, "limits": {"cpu": "1", "memory": "3Gi"}}
    merged = {name: {**SMALL.get(name, {}), **spec.get(name, {})} for name in SMALL.keys() | spec.keys()}
    merged["artifacts"] = {**spec.get("artifacts", {}), "endpoint": world.store.endpoint}
    merged["training"] = {"podTemplate": mounted_environment.training(), "resources": cpus, **spec.get("training", {})}
    merged["serving"] |= {"podTemplate": _serving_pods(), "resources": cpus}
    return {
        "apiVersion": "thinkrec.io/v1alpha1",
        "kind": "ThinkRecModel",
        "metadata": {"name": "movielens"},
        "spec": merged,
    }


def _serving_pods() -> dict[str, Any]:
    """Return the pod template of the environment, with a log that is shipped sooner than a test would wait."""
    template = mounted_environment.serving()
    triton = next(item for item in template["spec"]["containers"] if item["name"] == "triton")
    triton["env"] = [*triton["env"], {"name": "THINKREC_EVENTS_SEGMENT_SECONDS", "value": "5"}]
    return template


@pytest.fixture(scope="module")
def world(
    node_cluster: Cluster,
    node_store: seaweed.Seaweed,
    tiny_llama_dir: Path,
    movielens_dir: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[World]:
    """The operator from its own image by the chart, the data in the store, the Secret in the model's namespace."""
    _install_chart(node_cluster)
    _upload(node_store, {"movielens/ratings": movielens_dir, "movielens/base-model": tiny_llama_dir})
    for namespace in kube.fresh_namespace(node_cluster.api):
        kube.create_store_secret(node_cluster.api, namespace)
        yield World(node_cluster, namespace, node_store, tmp_path_factory.mktemp("overlay"))


def _install_chart(cluster: Cluster) -> None:
    if missing := dependencies.missing(dependencies.IMAGES):
        kube.unavailable(f"{', '.join(each.program for each in missing)} missing; run `scripts/cluster deps`")
    image = images.build("operator")
    cluster.node.load_image(image.archive)
    repository, _, tag = image.name.rpartition(":")
    values = {
        "image": {"repository": repository, "tag": tag, "pullPolicy": "Never"},
        "trainerImage": mounted_environment.IMAGE,
        "inferenceImage": mounted_environment.IMAGE,
        "operator": {"progressPeriodSeconds": 2},
    }
    done = chart.helm(
        *("upgrade", "--install", "thinkrec", str(chart.CHART)),
        *("--kubeconfig", str(cluster.kubeconfig), "--namespace", "thinkrec-system", "--create-namespace"),
        *("--take-ownership", "--force-conflicts", "--wait", "--timeout", "180s", "--values", "-"),
        given=yaml.safe_dump(values),
    )
    assert done.returncode == 0, done.stdout + done.stderr


def client(store: seaweed.Seaweed) -> Any:
    return boto3.client(
        "s3",
        endpoint_url=store.endpoint,
        aws_access_key_id=seaweed.ACCESS_KEY,
        aws_secret_access_key=seaweed.SECRET_KEY,
        region_name="us-east-1",
    )


def _upload(store: seaweed.Seaweed, folders: dict[str, Path]) -> None:
    s3 = client(store)
    for bucket in ("data", "models"):
        s3.create_bucket(Bucket=bucket)
    for prefix, folder in folders.items():
        for path in sorted(item for item in folder.rglob("*") if item.is_file()):
            s3.upload_file(str(path), "data", f"{prefix}/{path.relative_to(folder)}")


def test_an_applied_manifest_is_trained_and_served(world: World) -> None:
    world.apply()
    model = world.wait_ready(TRAINING_SECONDS)
    world.first_revision = model["status"]["servingRevision"]
    jobs = world.api.items(f"/apis/batch/v1/namespaces/{world.namespace}/jobs")
    assert len(jobs) == 11
    assert all(job["status"].get("succeeded") == 1 for job in jobs)
    assert "movielens" in world.kubectl("get", "thinkrecmodels")


def test_every_artifact_is_in_the_store_with_the_digest_that_status_tells(world: World) -> None:
    status, s3 = world.model()["status"], client(world.store)
    for row in (*status["stages"], *status["experts"]):
        bucket, _, key = row["artifactUri"].removeprefix("s3://").partition("/")
        manifest = s3.get_object(Bucket=bucket, Key=f"{key}/manifest.json")["Body"].read()
        assert f"sha256:{hashlib.sha256(manifest).hexdigest()}" == row["digest"], row["name"]


def test_the_service_recommends(world: World) -> None:
    answer = world.recommend()
    assert [item["rank"] for item in answer["items"]] == [1, 2, 3]
    assert answer["gates"]


def test_new_data_trains_again_and_rolls_out_without_losing_a_request(world: World) -> None:
    """A kubelet that is restarted in the middle changes nothing."""
    with Load(f"{world.url}/v1/recommend", {"userId": "2", "k": 2}) as load:
        world.apply(dataset={"revision": "2"})
        wait_for(lambda: world.model()["status"].get("progressPercent", 100) < 50, "the training to begin")
        world.cluster.stop_kubelet()
        time.sleep(5)
        world.cluster.start_kubelet()
        model = world.wait_ready(TRAINING_SECONDS)
    world.second_revision = model["status"]["servingRevision"]
    assert world.second_revision != world.first_revision
    assert load.answered > 10
    assert not load.failures, load.failures[:5]


def test_a_missed_gate_leaves_the_old_revision_in_service(world: World) -> None:
    before = world.model()["status"]["servingRevision"]
    gates = [{"metric": "AUC", "minimum": "1"}]
    world.apply(dataset={"revision": "2"}, gate={"temperature": "0.5"}, evaluation={"gates": gates})
    wait_for(
        lambda: condition(world.model(), "Stalled", "reason") == "GateFailed",
        f"the gate to fail: {world.model()['status']}",
        seconds=TRAINING_SECONDS,
        every=1,
    )
    assert world.model()["status"]["servingRevision"] == before
    assert condition(world.model(), "Available") == "True"
    assert world.recommend()["items"]


def test_a_pin_rolls_back_without_losing_a_request(world: World) -> None:
    with Load(f"{world.url}/v1/recommend", {"userId": "3", "k": 2}) as load:
        world.apply(dataset={"revision": "1"}, serving={**SMALL["serving"], "revision": world.first_revision})
        model = world.wait_ready(ROLLOUT_SECONDS)
    assert model["status"]["servingRevision"] == world.first_revision
    assert load.answered > 3
    assert not load.failures, load.failures[:5]


def experiment(world: World, name: str, **spec: Any) -> str:
    """Compare the model's two revisions on its users; return the path of the experiment."""
    body = {
        "apiVersion": "thinkrec.io/v1alpha1",
        "kind": "ThinkRecExperiment",
        "metadata": {"name": name},
        "spec": {
            "variants": [
                {"name": "old", "modelRef": {"name": "movielens"}, "revision": world.first_revision},
                {"name": "new", "modelRef": {"name": "movielens"}, "revision": world.second_revision},
            ],
            "controlVariantName": "old",
            "analysis": {
                "metrics": [{"name": "clicks", "event": {"name": "click"}}],
                "guardrails": [{"name": "errors", "request": {"field": "Error"}, "maximum": "0.2"}],
                "minSampleSize": 50,
                "periodSeconds": 20,
            },
            "promotionPolicy": "Automatic",
            **spec,
        },
    }
    (world.folder / "experiment.yaml").write_text(yaml.safe_dump(body))
    world.kubectl("apply", "--server-side", "-f", str(world.folder / "experiment.yaml"))
    return f"/apis/thinkrec.io/v1alpha1/namespaces/{world.namespace}/thinkrecexperiments/{name}"


def verdict(world: World, path: str, users: Users) -> dict[str, Any]:
    """Return the status of an experiment once it has a verdict."""

    def ended() -> bool:
        found = world.api.get(path)
        stalled = condition(found, "Stalled", "message")
        assert not stalled, f"stalled: {stalled}"
        return "conclusion" in found.get("status", {})

    wait_for(ended, f"a verdict; {users.told()}", seconds=EXPERIMENT_SECONDS, every=1)
    status: dict[str, Any] = world.api.get(path)["status"]
    return status


def test_a_revision_that_users_like_less_is_rolled_back_and_no_request_fails(world: World) -> None:
    world.apply(dataset={"revision": "1"}, serving={**SMALL["serving"], "updatePolicy": "OnExperiment"})
    world.wait_ready(ROLLOUT_SECONDS)
    liked = world.first_generation = world.recommend()["generation"]
    assignment = {"type": "HashedHeader", "key": "x-user"}
    with Users(world.url, likes=lambda generation: generation == liked) as users:
        path = experiment(
            world,
            "worse",
            offline={"gates": [{"metric": "UAUC", "minimum": "0"}]},
            traffic={"mode": "ABTest", "assignment": assignment},
        )
        status = verdict(world, path, users)
    told = status["conclusion"]
    assert (told["reason"], told["winner"]) == ("SignificantWinner", "old"), told
    assert float(told["effect"]) < -0.3
    assert {row["type"]: row["status"] for row in status["conditions"]}["RolledBack"] == "True"
    assert world.model()["status"]["servingRevision"] == world.first_revision
    assert len(users.generations) == 2, users.told()
    assert not users.failures, users.failures[:5]


def test_a_canary_that_users_like_goes_up_its_steps_wins_is_promoted_and_pinned(world: World) -> None:
    steps = [{"weight": 10, "pauseSeconds": 20}, {"weight": 50, "pauseSeconds": 20}]
    other = world.first_generation  # a pod may share out users of the last experiment for some seconds more
    with Users(world.url, likes=lambda generation: generation != other, name="later") as users:
        path = experiment(world, "better", traffic={"mode": "Canary", "steps": steps})
        status = verdict(world, path, users)
        told = status["conclusion"]
        assert status["currentStepIndex"] == 1
        assert (told["reason"], told["winner"]) == ("SignificantWinner", "new"), told
        assert 0.3 < float(told["lower"]) < USERS_EFFECT < float(told["upper"])
        wait_for(
            lambda: world.model()["status"]["servingRevision"] == world.second_revision,
            "the promoted revision to serve",
            seconds=ROLLOUT_SECONDS,
            every=1,
        )
    assert not users.failures, users.failures[:5]
    assert world.recommend()["generation"] != other
    pinned = {"updatePolicy": "OnExperiment", "revision": world.second_revision}
    world.apply(dataset={"revision": "1"}, serving={**SMALL["serving"], **pinned})
    assert world.wait_ready(ROLLOUT_SECONDS)["status"]["servingRevision"] == world.second_revision


def test_an_experiments_page_is_in_the_store(world: World) -> None:
    found = world.api.get(f"/apis/thinkrec.io/v1alpha1/namespaces/{world.namespace}/thinkrecexperiments/better")
    bucket, _, key = found["status"]["analysis"]["artifactUri"].removeprefix("s3://").partition("/")
    s3 = client(world.store)
    manifest = json.loads(s3.get_object(Bucket=bucket, Key=f"{key}/manifest.json")["Body"].read())
    page = next(entry for entry in manifest["files"] if entry["path"] == "report/index.html")
    text = s3.get_object(Bucket=bucket, Key=f"{key}/{page.get('object') or page['path']}")["Body"].read().decode()
    assert "clicks" in text


BROKEN: dict[str, tuple[dict[str, Any], str, str]] = {
    "no-secret": ({"artifacts": {"secretRef": {"name": "absent"}}}, "SecretNotFound", "absent"),
    "no-image": ({"training": {"image": "registry.invalid/none:1"}}, "ImagePullError", "registry.invalid/none:1"),
    "no-bucket": ({"dataset": {"storageUri": "s3://nowhere/ratings"}}, "DatasetNotFound", "nowhere"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_only_the_node_can_see_is_named(world: World, name: str) -> None:
    """Nothing of it is running yet, so each ends in seconds."""
    wrong, reason, named = BROKEN[name]
    body = _patch(world, {})
    body["metadata"]["name"] = name
    secret = {"secretRef": {"name": "store"}}
    body["spec"] |= {
        "experts": {"count": 2},
        "baseModel": {"storageUri": "s3://data/movielens/base-model", **secret},
        "dataset": {"storageUri": "s3://data/movielens/ratings", "items": {"storageUri": "s3://data/x"}, **secret},
    }
    body["spec"]["artifacts"] |= {"storageUri": f"s3://models/{name}", **secret}
    for part, values in wrong.items():
        body["spec"][part] |= values
    world.api.create(models_path(world.namespace), body)
    path = f"{models_path(world.namespace)}/{name}"
    wait_for(
        lambda: condition(world.api.get(path), "Stalled", "reason") == reason,
        f"{reason}: {world.api.get(path).get('status')}",
        seconds=ROLLOUT_SECONDS,
        every=1,
    )
    assert named in condition(world.api.get(path), "Stalled", "message")
    world.api.delete(path)


def test_a_deleted_model_takes_its_artifacts_with_it_where_it_shall(world: World) -> None:
    pinned = {**SMALL["serving"], "revision": world.second_revision}
    world.apply(serving=pinned, artifacts={"deletionPolicy": "Delete"})
    wait_for(lambda: world.model()["metadata"].get("finalizers"), "the finalizer")
    world.kubectl("delete", "thinkrecmodel", "movielens", "--wait=false")
    wait_for(lambda: world.api.find(world.path) is None, "the model to go", seconds=ROLLOUT_SECONDS, every=1)
    left = client(world.store).list_objects_v2(Bucket="models", Prefix="movielens/").get("Contents", [])
    manifests = [item["Key"] for item in left if item["Key"].endswith("manifest.json")]
    assert {key.split("/")[1] for key in manifests} <= set(EXPERIMENT_KINDS), "what experiments found stays"
