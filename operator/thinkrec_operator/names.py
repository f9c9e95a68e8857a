# SPDX-License-Identifier: Apache-2.0
"""Deterministic names: the same wish always has the same name, so that creating it twice is creating it once. Pure."""

from __future__ import annotations

import hashlib
import json

from thinkrec_crds.stage_kinds import StageKind

MAX_NAME = 63
"""Longest DNS label; a Job's name also becomes a label of its pods."""

MAX_JOB_NAME = 50
"""A pod of a JobSet is called `<name>-stage-0-<index>`, and that is a DNS label too."""


def short_hash(text: str, length: int = 8) -> str:
    """Return the first hex digits of the text's sha256."""
    return hashlib.sha256(text.encode()).hexdigest()[:length]


def content_hash(value: object) -> str:
    """Return 16 hex digits of the canonical JSON of a value."""
    return short_hash(json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False), 16)


def child_name(model: str, *parts: str, longest: int = MAX_NAME) -> str:
    """Return `<model>-<part>-…`, with the middle replaced by a hash where it would be too long."""
    name = "-".join((model, *parts))
    if len(name) <= longest:
        return name
    tail = f"{short_hash(name, 6)}-{parts[-1]}"
    return f"{name[: longest - len(tail) - 1].rstrip('-')}-{tail}"


def label_value(text: str) -> str:
    """Return the text as a label value: at most 63 characters, a hash in place of the rest."""
    if len(text) <= MAX_NAME:
        return text
    return f"{text[:54].rstrip('-._')}-{short_hash(text)}"


def job_name(model: str, title: str, key: str) -> str:
    """Return the name of a stage's Job: `<model>-<stage>-<first 8 of the key>`."""
    return child_name(model, title, key[:8], longest=MAX_JOB_NAME)


def revision_name(model: str, bundle_key: str) -> str:
    """Return the name of the revision that a bundle is."""
    return child_name(model, bundle_key[:10])


def stage_config_map_name(model: str, content: str) -> str:
    """Return the name of the immutable ConfigMap with this stage spec."""
    return child_name(model, "stage", short_hash(content, 10))


def traffic_config_map_name(model: str) -> str:
    """Return the ConfigMap by which a model's gateway learns how to share out its users."""
    return child_name(model, "traffic")


def artifact_uri(root: str, kind: StageKind, key: str) -> str:
    """Return the folder of an artifact below `artifacts.storageUri`."""
    return f"{root.rstrip('/')}/{kind.value}/{key}"
