# SPDX-License-Identifier: Apache-2.0
"""The smallest manifests that are valid, and many that differ from them by one mistake each."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import yaml

DELETE: Final = object()
"""Value of an edit that removes the field."""

MINIMAL_MODEL: Final[Mapping[str, Any]] = {
    "apiVersion": "thinkrec.io/v1alpha1",
    "kind": "ThinkRecModel",
    "metadata": {"name": "movies"},
    "spec": {
        "baseModel": {"storageUri": "hf://org/small-model"},
        "dataset": {
            "storageUri": "s3://data/ratings.parquet",
            "items": {"storageUri": "s3://data/items.parquet"},
        },
        "artifacts": {"storageUri": "s3://models/movies"},
    },
}

MINIMAL_EXPERIMENT: Final[Mapping[str, Any]] = {
    "apiVersion": "thinkrec.io/v1alpha1",
    "kind": "ThinkRecExperiment",
    "metadata": {"name": "fusion-test"},
    "spec": {
        "variants": [
            {"name": "now", "modelRef": {"name": "movies"}},
            {"name": "next", "modelRef": {"name": "movies"}, "revision": "movies-7f3a"},
        ],
        "controlVariantName": "now",
        "offline": {},
    },
}

AB_TEST: Final[Mapping[str, Any]] = {
    "mode": "ABTest",
    "assignment": {"type": "HashedHeader", "key": "x-user-id"},
}
ANALYSIS: Final[Mapping[str, Any]] = {"metrics": [{"name": "clicks", "event": {"name": "click"}}]}


@dataclass(frozen=True)
class Mistake:
    """One mistake in a manifest, and what must be said about it."""

    name: str
    edits: Mapping[str, Any]
    path: str
    message: str
    remedy: str = ""
    value: str = ""
    only_here: bool = False
    """The apiserver accepts it, or refuses it in another place."""


def edited(base: Mapping[str, Any], edits: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of a manifest with values set at slash-separated paths."""
    body = copy.deepcopy(dict(base))
    for path, value in edits.items():
        *parents, last = path.split("/")
        owner: Any = body
        for part in parents:
            owner = owner[int(part)] if isinstance(owner, list) else owner.setdefault(part, {})
        key: Any = int(last) if isinstance(owner, list) else last
        if value is DELETE:
            del owner[key]
        else:
            owner[key] = copy.deepcopy(value)
    return body


class _QuotedTexts(yaml.SafeDumper):
    """Writes every text in quotes: PyYAML leaves some bare that kubectl takes for numbers, like an expert's `0e0`."""

    def represent_text(self, data: str) -> yaml.ScalarNode:
        return self.represent_scalar("tag:yaml.org,2002:str", data, style='"')


_QuotedTexts.add_representer(str, _QuotedTexts.represent_text)


def as_yaml(body: Any) -> str:
    """Return YAML text in which every text is read as a text again."""
    return yaml.dump(body, Dumper=_QuotedTexts, sort_keys=False, allow_unicode=True)


def manifest(base: Mapping[str, Any], edits: Mapping[str, Any] | None = None) -> str:
    """Return an edited manifest as YAML text."""
    return yaml.safe_dump(edited(base, edits or {}), sort_keys=False)


MODEL_MISTAKES: Final = (
    Mistake("no base model", {"spec/baseModel": DELETE}, "spec.baseModel", "must be set", "language model"),
    Mistake("no dataset", {"spec/dataset": DELETE}, "spec.dataset", "must be set"),
    Mistake("no items", {"spec/dataset/items": DELETE}, "spec.dataset.items", "must be set", "catalogue"),
    Mistake("no artifacts", {"spec/artifacts": DELETE}, "spec.artifacts", "must be set"),
    Mistake("no spec", {"spec": DELETE}, "spec", "must be set"),
    Mistake("null spec", {"spec": None}, "spec", "must be set"),
    Mistake("no name", {"metadata/name": DELETE}, "metadata.name", "must be set", only_here=True),
    Mistake("no metadata", {"metadata": DELETE}, "metadata", "must be set", only_here=True),
    Mistake("name too long", {"metadata/name": "m" * 53}, "metadata.name", "at most 52 characters"),
    Mistake("name in capitals", {"metadata/name": "Movies"}, "metadata.name", "lower-case", value='"Movies"'),
    Mistake("name begins with a digit", {"metadata/name": "7movies"}, "metadata.name", "begin with a letter"),
    Mistake("namespace of dots", {"metadata/namespace": "../x"}, "metadata.namespace", "lower-case", only_here=True),
    Mistake("unknown kind", {"kind": "ThinkRecModle"}, "kind", "known kind", "ThinkRecModel", only_here=True),
    Mistake("unknown version", {"apiVersion": "thinkrec.io/v1"}, "apiVersion", "thinkrec.io/v1alpha1", only_here=True),
    Mistake("no kind", {"kind": DELETE}, "kind", "must be set", "ThinkRecModel", only_here=True),
    Mistake("no version", {"apiVersion": DELETE}, "apiVersion", "must be set", only_here=True),
    Mistake("typing error", {"spec/expert": {"count": 2}}, "spec.expert", "not a known field", "`experts`"),
    Mistake(
        "snake case",
        {"spec/dataset/history_length": 5},
        "spec.dataset.history_length",
        "not a known field",
        "`historyLength`",
    ),
    Mistake("wrong place", {"spec/rank": 8}, "spec.rank", "not a known field here", "`spec.adapter.lora.rank`"),
    Mistake("unlike anything", {"spec/zzzz": 8}, "spec.zzzz", "not a known field", "fields here are baseModel"),
    Mistake(
        "address of the web",
        {"spec/baseModel/storageUri": "https://x/y"},
        "spec.baseModel.storageUri",
        "hf://organisation/name",
        value='"https://x/y"',
    ),
    Mistake(
        "hub address for data",
        {"spec/dataset/storageUri": "hf://org/data"},
        "spec.dataset.storageUri",
        "must be s3://bucket/key",
    ),
    Mistake(
        "bucket without key",
        {"spec/artifacts/storageUri": "s3://bucket"},
        "spec.artifacts.storageUri",
        "s3://bucket/key",
    ),
    Mistake(
        "host in a file address", {"spec/artifacts/storageUri": "file://h/x"}, "spec.artifacts.storageUri", "file:///"
    ),
    Mistake(
        "unknown format", {"spec/dataset/format": "csv"}, "spec.dataset.format", "one of Parquet, CSV", "mean CSV?"
    ),
    Mistake("decimal without quotes", {"spec/dataset/labelThreshold": 4}, "spec.dataset.labelThreshold", "text", '"4"'),
    Mistake(
        "float without quotes",
        {"spec/adapter/learningRate": 0.0001},
        "spec.adapter.learningRate",
        "must be text",
        '"0.0001"',
    ),
    Mistake("no decimal", {"spec/gate/temperature": "warm"}, "spec.gate.temperature", "above zero", value='"warm"'),
    Mistake("zero temperature", {"spec/gate/temperature": "0.0"}, "spec.gate.temperature", "above zero"),
    Mistake("dropout above one", {"spec/adapter/lora/dropout": "1.5"}, "spec.adapter.lora.dropout", 'from "0" to "1"'),
    Mistake(
        "number in quotes", {"spec/dataset/historyLength": "10"}, "spec.dataset.historyLength", "whole", "quotes: 10"
    ),
    Mistake("fraction of a number", {"spec/dataset/historyLength": 1.5}, "spec.dataset.historyLength", "whole number"),
    Mistake("true for a number", {"spec/training/nodes": True}, "spec.training.nodes", "whole number", value="true"),
    Mistake("too small", {"spec/experts/count": 0}, "spec.experts.count", "at least 1", value="0"),
    Mistake("too large", {"spec/experts/count": 65}, "spec.experts.count", "at most 64", value="65"),
    Mistake(
        "two numbers of experts",
        {"spec/experts": {"count": 3, "auto": {}}},
        "spec.experts",
        "exactly one of `count`, `items` or `auto`",
        value="`count` and `auto`",
    ),
    Mistake(
        "no number of experts", {"spec/experts": {"steps": 5}}, "spec.experts", "exactly one", value="none of them"
    ),
    Mistake("no expert", {"spec/experts": {"items": []}}, "spec.experts.items", "must not be empty"),
    Mistake(
        "an expert twice",
        {"spec/experts": {"items": [{"name": "a"}, {"name": "a"}]}},
        "spec.experts.items",
        "every name must be unique; repeated: a",
    ),
    Mistake(
        "bad expert name", {"spec/experts": {"items": [{"name": "A b"}]}}, "spec.experts.items[0].name", "lower-case"
    ),
    Mistake("range upside down", {"spec/experts": {"auto": {"min": 5, "max": 3}}}, "spec.experts.auto.min", "`max`"),
    Mistake(
        "minimum above the default maximum",
        {"spec/experts": {"auto": {"min": 11}}},
        "spec.experts.auto.min",
        "must not be greater than `max`",
        value="11",
    ),
    Mistake(
        "default samples above the pool",
        {"spec/traces/poolSize": 10},
        "spec.traces.maxSamples",
        "must not be greater than `poolSize`",
        value="500, the default",
    ),
    Mistake(
        "steps and epochs", {"spec/adapter": {"steps": 5, "epochs": 1}}, "spec.adapter", "must not be set together"
    ),
    Mistake(
        "replicas and autoscaling",
        {"spec/serving": {"replicas": 2, "autoscaling": {"maxReplicas": 3}}},
        "spec.serving",
        "`replicas` and `autoscaling` must not be set together",
    ),
    Mistake(
        "autoscaling upside down",
        {"spec/serving/autoscaling": {"minReplicas": 5, "maxReplicas": 3}},
        "spec.serving.autoscaling.minReplicas",
        "`maxReplicas`",
    ),
    Mistake("yes as YAML reads it", {"spec/serving/score": True}, "spec.serving.score", "Yes, YesMinusNo", "in quotes"),
    Mistake(
        "endpoint without address", {"spec/teacher": {"type": "OpenAI", "model": "m"}}, "spec.teacher.baseUrl", "OpenAI"
    ),
    Mistake(
        "endpoint without model",
        {"spec/teacher": {"type": "OpenAI", "baseUrl": "https://host/v1"}},
        "spec.teacher.model",
        "`model` must be set when `type` is OpenAI",
    ),
    Mistake(
        "address for the base model as teacher",
        {"spec/teacher": {"baseUrl": "https://host/v1"}},
        "spec.teacher.baseUrl",
        "must not be set unless `type` is OpenAI",
    ),
    Mistake(
        "password in an address",
        {"spec/teacher": {"type": "OpenAI", "model": "m", "baseUrl": "https://me:pw@host/v1"}},
        "spec.teacher.baseUrl",
        "without credentials",
        value="a hidden value",
    ),
    Mistake(
        "attributes without a column",
        {"spec/keywords": {"source": "Attributes"}},
        "spec.keywords",
        "`dataset.items.columns.attributes` must name a column",
    ),
    Mistake(
        "backend without runtime",
        {"spec/training/backend": "TrainJob"},
        "spec.training.runtimeRef",
        "must be set when `backend` is TrainJob",
        value="nothing",
    ),
    Mistake(
        "unknown stage",
        {"spec/training/stages": [{"name": "adaptor"}]},
        "spec.training.stages[0].name",
        "one of dataset",
        "mean adapter?",
    ),
    Mistake(
        "a stage twice",
        {"spec/training/stages": [{"name": "gate"}, {"name": "gate"}]},
        "spec.training.stages",
        "repeated: gate",
    ),
    Mistake(
        "half a processor without quotes",
        {"spec/training/resources": {"limits": {"cpu": 0.5}}},
        "spec.training.resources.limits.cpu",
        "quantity in quotes",
        value="0.5",
    ),
    Mistake(
        "no quantity",
        {"spec/serving/resources": {"limits": {"nvidia.com/gpu": "one"}}},
        'spec.serving.resources.limits["nvidia.com/gpu"]',
        "quantity",
    ),
    Mistake(
        "mapping for a list", {"spec/training/tolerations": {}}, "spec.training.tolerations", "must be a list", "dash"
    ),
    Mistake("text for a mapping", {"spec/gate": "softmax"}, "spec.gate", "must be a mapping", value='"softmax"'),
    Mistake("list for a text", {"spec/training/image": ["a"]}, "spec.training.image", "must be text, not a list"),
    Mistake("text for a flag", {"spec/suspend": "true"}, "spec.suspend", "true or false", "without quotes"),
    Mistake("two fields of cron", {"spec/schedule/cron": "0 3"}, "spec.schedule.cron", "five cron fields"),
    Mistake("empty schedule", {"spec/schedule": {}}, "spec.schedule", "at least one of `cron`"),
    Mistake(
        "time zone without cron",
        {"spec/schedule": {"maxStalenessSeconds": 3600, "timeZone": "Europe/Berlin"}},
        "spec.schedule.cron",
        "must be set when `timeZone` is set",
    ),
    Mistake("unknown metric", {"spec/evaluation/metrics": ["HR@5"]}, "spec.evaluation.metrics[0]", "NDCG@k"),
    Mistake("a metric twice", {"spec/evaluation/metrics": ["AUC", "AUC"]}, "spec.evaluation.metrics", "repeated: AUC"),
    Mistake(
        "gate without bound", {"spec/evaluation/gates": [{"metric": "AUC"}]}, "spec.evaluation.gates[0]", "at least one"
    ),
    Mistake(
        "text too long",
        {"spec/training/args": ["x" * 5000]},
        "spec.training.args[0]",
        "at most 4096 characters",
    ),
    Mistake("list too long", {"spec/training/args": ["x"] * 65}, "spec.training.args", "at most 64 elements"),
    Mistake("empty sample", {"spec/dataset/limits": {}}, "spec.dataset.limits", "`maxUsers` must be set"),
    Mistake(
        "number for a text label", {"metadata/labels": {"team": 7}}, "metadata.labels.team", "text", only_here=True
    ),
)

_ONLINE: Final = {"spec/traffic": AB_TEST, "spec/analysis": ANALYSIS}

EXPERIMENT_MISTAKES: Final = (
    Mistake("one variant", {"spec/variants/1": DELETE}, "spec.variants", "at least 2"),
    Mistake("unknown control", {"spec/controlVariantName": "old"}, "spec.controlVariantName", "one of `variants`"),
    Mistake("a name twice", {"spec/variants/1/name": "now"}, "spec.variants", "repeated: now"),
    Mistake("nothing to do", {"spec/offline": DELETE}, "spec", "at least one of `offline` or `traffic`"),
    Mistake("one weight", {"spec/variants/0/weight": 50}, "spec.variants", "add up to 100"),
    Mistake(
        "weights of ninety",
        {"spec/variants/0/weight": 50, "spec/variants/1/weight": 40},
        "spec.variants",
        "add up to 100",
    ),
    Mistake(
        "weight above all",
        {"spec/variants/0/weight": 101, "spec/variants/1/weight": 0},
        "spec.variants[0].weight",
        "at most 100",
    ),
    Mistake("test without analysis", {"spec/traffic": AB_TEST}, "spec.analysis", "when `traffic.mode` is ABTest"),
    Mistake(
        "test without assignment",
        {**_ONLINE, "spec/traffic/assignment": DELETE},
        "spec.traffic.assignment",
        "must be set when `mode` is ABTest",
    ),
    Mistake(
        "assignment without key",
        {**_ONLINE, "spec/traffic/assignment": {"type": "Cookie"}},
        "spec.traffic.assignment.key",
        "must be set when `type` is Cookie",
    ),
    Mistake("steps of a test", {**_ONLINE, "spec/traffic/steps": [{"weight": 5}]}, "spec.traffic.steps", "is Canary"),
    Mistake(
        "canary without steps",
        {"spec/traffic": {"mode": "Canary"}, "spec/analysis": ANALYSIS},
        "spec.traffic.steps",
        "must be set when `mode` is Canary",
    ),
    Mistake(
        "canary of three",
        {
            "spec/traffic": {"mode": "Canary", "steps": [{"weight": 10}]},
            "spec/analysis": ANALYSIS,
            "spec/variants": [{"name": name, "modelRef": {"name": "movies"}} for name in ("now", "b", "c")],
        },
        "spec.variants",
        "two members",
    ),
    Mistake(
        "mirror without share", {"spec/traffic": {"mode": "Mirror"}}, "spec.traffic.mirrorPercent", "`mode` is Mirror"
    ),
    Mistake(
        "metric from two places",
        {
            **_ONLINE,
            "spec/analysis/metrics/0/prometheus": {"address": "http://prometheus:9090", "query": "up"},
        },
        "spec.analysis.metrics[0]",
        "exactly one of `event`, `request` or `prometheus`",
    ),
    Mistake(
        "decided by what is not counted per user",
        {
            **_ONLINE,
            "spec/analysis/metrics": [
                {"name": "latency", "prometheus": {"address": "http://prometheus:9090", "query": "up"}}
            ],
        },
        "spec.analysis.metrics",
        "must be counted per user",
    ),
    Mistake(
        "cap of a share",
        {**_ONLINE, "spec/analysis/metrics/0/event": {"name": "click", "cap": "5"}},
        "spec.analysis.metrics[0].event.cap",
        "a user counts once",
    ),
    Mistake(
        "one test without an end",
        {**_ONLINE, "spec/analysis/method": "FixedHorizon"},
        "spec.traffic",
        "`traffic.durationSeconds` must be set",
    ),
    Mistake(
        "key of nobody",
        {**_ONLINE, "spec/traffic/assignment": {"type": "Random", "key": "x-user"}},
        "spec.traffic.assignment.key",
        "nobody is told apart",
    ),
    Mistake(
        "ratio of nothing",
        {**_ONLINE, "spec/analysis/metrics/0/event": {"name": "click", "type": "Ratio"}},
        "spec.analysis.metrics[0].event.denominator",
        "must be set when `type` is Ratio",
    ),
    Mistake(
        "certainty",
        {**_ONLINE, "spec/analysis/significanceLevel": "1"},
        "spec.analysis.significanceLevel",
        'below "1"',
    ),
    Mistake(
        "guardrail without bound",
        {**_ONLINE, "spec/analysis/guardrails": [{"name": "errors", "event": {"name": "error"}}]},
        "spec.analysis.guardrails[0]",
        "at least one of `minimum`, `maximum` or `maxRegression`",
    ),
    Mistake(
        "unknown policy", {"spec/promotionPolicy": "Auto"}, "spec.promotionPolicy", "one of None, Manual", "Automatic?"
    ),
)
