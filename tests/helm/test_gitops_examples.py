# SPDX-License-Identifier: Apache-2.0
"""The GitOps examples: valid, pinned, and the story they tell is what `reconcile` does."""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from support.kube import unavailable
from support.model_world import World
from thinkrec_crds import group
from thinkrec_crds.validation import validate_documents

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples" / "gitops"
STEPS = ("1-first", "2-new-data", "3-rollback")
"""Those with nothing but the model."""
COMPARE = "4-compare"
VERSIONS = {
    ("source.toolkit.fluxcd.io/v1", "GitRepository"),
    ("helm.toolkit.fluxcd.io/v2", "HelmRelease"),
    ("kustomize.toolkit.fluxcd.io/v1", "Kustomization"),
    ("kustomize.config.k8s.io/v1beta1", "Kustomization"),
    ("argoproj.io/v1alpha1", "Application"),
    (group.API_VERSION, group.MODEL_KIND),
    (group.API_VERSION, group.EXPERIMENT_KIND),
}
"""Every kind in the examples with its version."""


def documents(path: Path) -> list[dict[str, Any]]:
    return [body for body in yaml.safe_load_all(path.read_text("utf-8")) if body]


def overlay(step: str) -> dict[str, Any]:
    """Return the model of a step, as kustomize patches it."""
    folder = EXAMPLES / "models" / step
    (settings,) = documents(folder / "kustomization.yaml")
    base = settings["resources"][0]
    (model,) = documents(folder / base / "model.yaml")
    for patch in settings["patches"]:
        assert patch["target"] == {"kind": model["kind"], "name": model["metadata"]["name"]}
        for change in yaml.safe_load(patch["patch"]):
            *way, last = change["path"].strip("/").split("/")
            place = functools.reduce(lambda value, name: value[name], way, model)
            assert (change["op"] == "replace") is (last in place), f"{step}: {change}"
            place[last] = change["value"]
    found: dict[str, Any] = model
    return found


def test_every_document_has_a_known_version() -> None:
    found = [body for path in EXAMPLES.rglob("*.yaml") for body in documents(path)]
    seen = {(body["apiVersion"], body["kind"]) for body in found if "kind" in body}
    assert seen == VERSIONS
    assert [body.keys() for body in found if "kind" not in body] == [{"data"}], "only the patch of argocd-cm has none"


@pytest.mark.parametrize("step", STEPS)
def test_a_step_is_a_valid_model(step: str) -> None:
    assert validate_documents(yaml.safe_dump(overlay(step)), step) == []


@pytest.mark.parametrize("step", STEPS)
def test_kustomize_makes_the_same(step: str) -> None:
    if shutil.which("kubectl") is None:
        unavailable("kubectl is not on PATH")
    command = ["kubectl", "kustomize", str(EXAMPLES / "models" / step)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert yaml.safe_load(done.stdout) == overlay(step)


def test_the_step_that_compares_brings_an_experiment_of_its_own() -> None:
    if shutil.which("kubectl") is None:
        unavailable("kubectl is not on PATH")
    command = ["kubectl", "kustomize", str(EXAMPLES / "models" / COMPARE)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert validate_documents(done.stdout, COMPARE) == []
    bodies = {body["kind"]: body for body in yaml.safe_load_all(done.stdout)}
    assert bodies.pop("ThinkRecModel") == overlay(COMPARE)
    (experiment,) = documents(EXAMPLES / "models" / COMPARE / "experiment.yaml")
    assert list(bodies.values()) == [experiment]


def test_paths_in_the_examples_exist() -> None:
    text = "".join(path.read_text("utf-8") for path in EXAMPLES.rglob("*.yaml"))
    paths = re.findall(r"^\s*(?:path|chart): (\.?/?(?:examples|helm)\S+)$", text, re.MULTILINE)
    assert len(paths) == 4
    assert [path for path in paths if not (ROOT / path).is_dir()] == []


def test_the_health_check_is_installed_for_both_kinds() -> None:
    (patch,) = documents(EXAMPLES / "argocd" / "argocd-cm.yaml")
    check = (ROOT / "helm" / "argocd" / "thinkrec-health.lua").read_text("utf-8")
    kinds = (group.MODEL_KIND, group.EXPERIMENT_KIND)
    assert patch["data"] == {f"resource.customizations.health.{group.GROUP}_{kind}": check for kind in kinds}


def test_flux_judges_by_conditions_that_exist() -> None:
    (settings,) = documents(EXAMPLES / "flux" / "models.yaml")
    (rule,) = settings["spec"]["healthCheckExprs"]
    assert (rule["apiVersion"], rule["kind"]) == (group.API_VERSION, group.MODEL_KIND)
    assert set(re.findall(r"c\.type == '(\w+)'", " ".join(rule.values()))) == {"Stalled", "Ready"}


class Story:
    """A cluster on which the steps are applied one after the other."""

    def __init__(self) -> None:
        self.world = World(spec=self.spec("1-first"))

    def spec(self, step: str) -> dict[str, Any]:
        found: dict[str, Any] = overlay(step)["spec"]
        return found

    def apply(self, step: str) -> Mapping[str, str]:
        """Apply a step and let everything run; return the status of each condition."""
        wanted = self.spec(step)
        if wanted != self.world.spec:
            self.world.spec, self.world.generation = wanted, self.world.generation + 1
        return {condition.type: condition.status for condition in self.world.run().status.conditions}

    @property
    def serving(self) -> str:
        """Return the revision that answers."""
        return self.world.status.serving_revision or ""


class TestStory:
    def test_new_data_trains_again_passes_the_gate_and_is_rolled_out(self) -> None:
        story = Story()
        assert story.apply("1-first")["Ready"] == "True"
        first, trained = story.serving, sum(story.world.runs.values())
        assert story.apply("2-new-data")["Ready"] == "True"
        assert story.serving not in ("", first)
        assert sum(story.world.runs.values()) > trained

    def test_the_pin_is_the_name_of_the_first_revision(self) -> None:
        """The name follows from the spec and the meaning of the stages; when either changes, correct the patch."""
        story = Story()
        story.apply("1-first")
        assert story.spec("3-rollback")["serving"]["revision"] == story.serving

    def test_the_rollback_serves_the_first_revision_again_without_any_training(self) -> None:
        story = Story()
        story.apply("1-first")
        first = story.serving
        story.apply("2-new-data")
        trained = dict(story.world.runs)
        verdict = story.apply("3-rollback")
        assert (story.serving, verdict["Ready"]) == (first, "True")
        assert story.world.runs == trained
        assert story.world.status.condition("Ready").reason == "WaitingForPin"  # type: ignore[union-attr]

    def test_a_worse_model_stays_outside_and_the_first_serves_on(self) -> None:
        story = Story()
        story.apply("1-first")
        first, story.world.auc = story.serving, 0.65
        verdict = story.apply("2-new-data")
        assert (verdict["Stalled"], verdict["Ready"], verdict["Available"]) == ("True", "False", "True")
        assert story.serving == first
        assert story.world.status.condition("Stalled").reason == "GateFailed"  # type: ignore[union-attr]

    def test_what_is_to_be_compared_is_trained_and_waits_for_the_experiment(self) -> None:
        story = Story()
        story.apply("1-first")
        first = story.serving
        assert story.apply(COMPARE)["Ready"] == "True"
        assert story.serving == first
        assert story.world.status.latest_revision != first

    def test_going_back_in_git_is_a_rollback_too(self) -> None:
        """The first data's artifacts are still in the store: nothing is trained again."""
        story = Story()
        story.apply("1-first")
        first = story.serving
        story.apply("2-new-data")
        trained = dict(story.world.runs)
        story.apply("1-first")
        assert story.serving == first
        assert {
            key: story.world.runs[key] - count for key, count in trained.items() if story.world.runs[key] > count
        } == {}
