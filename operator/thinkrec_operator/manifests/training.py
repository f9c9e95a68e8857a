# SPDX-License-Identifier: Apache-2.0
"""Stage ConfigMap, and the object that runs a stage: Job, JobSet or TrainJob. Pure.

A stage in several pods is an Indexed Job. Every index is needed, so the first one that fails for good ends the Job.
"""

from __future__ import annotations

from thinkrec_operator.manifests import common, pods
from thinkrec_operator.manifests.common import Manifest
from thinkrec_operator.manifests.pods import ANNOTATION_GENERATION, ANNOTATION_STAGE_KEY, CONTAINER
from thinkrec_operator.manifests.train_job import train_job
from thinkrec_operator.plan import ConfigMapChild, JobChild, PeersServiceChild

__all__ = ["ANNOTATION_GENERATION", "ANNOTATION_STAGE_KEY", "CONTAINER", "config_map", "job", "peers_service"]

JOB_SET_API = "jobset.x-k8s.io/v1alpha2"
REPLICATED_JOB = "stage"
"""Name of the only Job within a JobSet."""


def config_map(child: ConfigMapChild) -> Manifest:
    """Return the ConfigMap with a stage spec, the serving settings, the order to clean up, or the traffic table."""
    found: Manifest = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": common.metadata(child.owner, child.name, child.component),
        "data": dict(child.data),
    }
    return {**found, "immutable": True} if child.immutable else found


def job(child: JobChild) -> Manifest:
    """Return the object that runs one stage."""
    if child.backend == "JobSet":
        return _job_set(child)
    if child.backend == "TrainJob":
        return train_job(child)
    subdomain = child.peers if child.layout.nodes > 1 else None
    master = f"{child.name}-0.{subdomain}" if subdomain else "127.0.0.1"
    spec: Manifest = {
        **_pods(child),
        **_retries(child),
        "ttlSecondsAfterFinished": child.settings.ttl_seconds_after_finished,
        "template": pods.template(child, subdomain=subdomain, master=master),
    }
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": pods.metadata(child), "spec": spec}


def _pods(child: JobChild) -> Manifest:
    found: Manifest = {
        "completions": child.layout.pods,
        "parallelism": child.layout.pods,
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": pods.failure_policy(),
    }
    if child.layout.pods > 1:
        found["completionMode"] = "Indexed"
    if child.settings.active_deadline_seconds is not None:
        found["activeDeadlineSeconds"] = child.settings.active_deadline_seconds
    return found


def _retries(child: JobChild) -> Manifest:
    """Return how often pods may fail: together for one pod, each for itself where there are several.

    One crash among pods that train together ends all of them: counted together it would cost as many retries as pods.
    """
    limit = child.settings.backoff_limit
    return {"backoffLimit": limit} if child.layout.pods == 1 else {"backoffLimitPerIndex": limit, "maxFailedIndexes": 0}


def _job_set(child: JobChild) -> Manifest:
    """Return a JobSet of one Job: a failure starts all of its pods again, together."""
    master = f"{child.name}-{REPLICATED_JOB}-0-0.{child.name}"
    inner: Manifest = {
        **_pods(child),
        "completionMode": "Indexed",
        "backoffLimit": 0,
        "template": pods.template(child, master=master),
    }
    final = {"action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy", "DeadlineExceeded"]}
    return {
        "apiVersion": JOB_SET_API,
        "kind": "JobSet",
        "metadata": pods.metadata(child),
        "spec": {
            "replicatedJobs": [{"name": REPLICATED_JOB, "replicas": 1, "template": {"spec": inner}}],
            "network": {"enableDNSHostnames": True, "publishNotReadyAddresses": True},
            "failurePolicy": {
                "maxRestarts": child.settings.backoff_limit,
                "rules": [{"name": "noRetryHelps", **final}],
            },
            "ttlSecondsAfterFinished": child.settings.ttl_seconds_after_finished,
        },
    }


def peers_service(child: PeersServiceChild) -> Manifest:
    """Return the headless Service that gives the pods of a model's Indexed Jobs their names, ready or not."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": common.metadata(child.owner, child.name, "training"),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": common.selector(child.owner, "training"),
            "ports": [{"name": "torchrun", "port": pods.MASTER_PORT, "protocol": "TCP"}],
        },
    }
