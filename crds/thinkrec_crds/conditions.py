# SPDX-License-Identifier: Apache-2.0
"""Condition types and reasons of both kinds, each with its meaning and what a person can do about it.

Nothing else spells them out: the operator takes them from here, and the troubleshooting page is generated from here.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final, Self


class ConditionType(StrEnum):
    """What is observed; `meaning` says when it is True, `transient` that it is present only then."""

    meaning: str
    transient: bool

    def __new__(cls, value: str, meaning: str, transient: bool = False) -> Self:
        """Make a member that is its own wire value."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        member.transient = transient
        return member

    READY = (
        "Ready",
        "The spec of this generation is in force: a model is trained, gated and served; an experiment runs.",
    )
    RECONCILING = "Reconciling", "The operator is on its way to the spec of this generation.", True
    STALLED = "Stalled", "The operator cannot go on until something changes.", True
    SUSPENDED = "Suspended", "`spec.suspend` is on: no new work is started."

    AVAILABLE = "Available", "Some revision answers requests, not necessarily the newest."
    DATASET_READY = "DatasetReady", "Data and base model were reached with the given credentials."
    ADMITTED = "Admitted", "The queue admitted the training, or no queue is used."
    TRAINING_SUCCEEDED = "TrainingSucceeded", "All stages, experts and the gate are done."
    ARTIFACTS_STORED = "ArtifactsStored", "The bundle is in the store and its digests were verified."
    EVALUATED = "Evaluated", "The newest revision was evaluated and reached every gate."
    SERVING_READY = "ServingReady", "Triton reports the model ready on the least number of replicas."
    STALE = "Stale", "The served model is older than `spec.schedule.maxStalenessSeconds`.", True

    SUCCEEDED = "Succeeded", "The experiment ended with a verdict."
    VARIANTS_READY = "VariantsReady", "Every variant's revision exists and can be served."
    OFFLINE_EVALUATED = "OfflineEvaluated", "The offline comparison is done and its gates were reached."
    TRAFFIC_CONFIGURED = "TrafficConfigured", "The gateway assigns users as specified."
    PROMOTED = "Promoted", "The winning revision was promoted in status."
    ROLLED_BACK = "RolledBack", "The control variant gets all traffic again."


class Reason(StrEnum):
    """Why a condition has its status; `remedy` is empty where there is nothing to do."""

    meaning: str
    remedy: str

    def __new__(cls, value: str, meaning: str, remedy: str = "") -> Self:
        """Make a member that is its own wire value."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.meaning = meaning
        member.remedy = remedy
        return member

    # The ordinary course of things.
    PENDING = "Pending", "Nothing is known yet."
    PROGRESSING = "Progressing", "Work for this generation is going on."
    PROGRESSING_WITH_RETRY = (
        "ProgressingWithRetry",
        "An attempt failed and another one follows.",
        "Nothing yet. If it goes on, read the message and the log of the Job that it names.",
    )
    SUCCEEDED = "Succeeded", "It is done."
    JOBS_RUNNING = "JobsRunning", "Training Jobs are running."
    NOT_SUSPENDED = "NotSuspended", "`spec.suspend` is off."
    SUSPENDED = "Suspended", "`spec.suspend` is on.", "Set `spec.suspend` to false to go on."
    NO_QUEUE = "NoQueue", "No queue is used, so nothing needs to be admitted."
    WAITING_FOR_QUOTA = (
        "WaitingForQuota",
        "The queue has not admitted the training yet.",
        "Wait, or ask for more quota in the queue that `spec.training.queueName` names, or for fewer resources.",
    )
    WAITING_FOR_PIN = (
        "WaitingForPin",
        "A newer revision is trained and gated; `updatePolicy` lets the pinned one serve on.",
        "Set `spec.serving.revision` to the newer one, or let an experiment decide.",
    )

    EXPERIMENT_RUNNING = (
        "ExperimentRunning",
        "A newer revision is trained and gated; an experiment shares out the users of the one that serves.",
        "Wait for its verdict, or delete the experiment, or pin `spec.serving.revision`.",
    )

    # What only the user can put right.
    INVALID_SPEC = (
        "InvalidSpec",
        "The spec asks for something that cannot be.",
        "Correct the field that the message names; `thinkrec validate -f FILE` finds such errors beforehand.",
    )
    DATASET_NOT_FOUND = (
        "DatasetNotFound",
        "The data, the base model or the store is not at its address.",
        "Check the `storageUri` that the message names: bucket, key, spelling, region.",
    )
    DATASET_INVALID = (
        "DatasetInvalid",
        "The data was read but cannot be used.",
        "Correct what the message names: a column, a format, a rating that is no number. Then set a new revision.",
    )
    CREDENTIALS_INVALID = (
        "CredentialsInvalid",
        "The store, hub or teacher refused the credentials.",
        "Check the Secret that the message names, or the identity of the ServiceAccount, and what it may do.",
    )
    SECRET_NOT_FOUND = (
        "SecretNotFound",
        "A Secret that the spec names does not exist in this namespace.",
        "Create the Secret, or correct `secretRef.name`.",
    )
    BACKEND_NOT_INSTALLED = (
        "BackendNotInstalled",
        "The cluster does not know the kind that `spec.training.backend` asks for.",
        "Install JobSet or Kubeflow Trainer, or set `spec.training.backend` to Job.",
    )
    CHILD_REFUSED = (
        "ChildRefused",
        "The apiserver refuses an object that the operator must create.",
        "Read the message: a field of `podTemplate`, a quota, an admission policy, or a right that the operator lacks."
        " It is tried again when the spec changes, and at every resync.",
    )
    REVISION_NOT_FOUND = (
        "RevisionNotFound",
        "The pinned revision does not exist.",
        "Pin one that `kubectl get controllerrevisions` lists for this model, or remove the pin.",
    )
    LOCAL_URI_NOT_SUPPORTED = (
        "LocalUriNotSupported",
        "A relative file: address means nothing on a cluster.",
        "Use s3:// or hf://, or a file:/// path on a volume that `spec.training.podTemplate` mounts.",
    )

    # Training.
    TRAINING_FAILED = (
        "TrainingFailed",
        "A stage failed and its retries are used up.",
        "Read the message and the log of the Job; then change the spec, or set the retrain annotation to try again.",
    )
    PREEMPTED = "Preempted", "A pod was moved away; it continues from its last checkpoint and no retry is used up."
    BACKOFF_LIMIT_EXCEEDED = (
        "BackoffLimitExceeded",
        "A Job failed as often as it may.",
        "Read the last log line in the message; raise `spec.training.backoffLimit` only for passing trouble.",
    )
    DEADLINE_EXCEEDED = (
        "DeadlineExceeded",
        "The deadline passed first.",
        "Raise `activeDeadlineSeconds`, give more resources, or ask for less work.",
    )
    OOM_KILLED = (
        "OOMKilled",
        "A container used more memory than its limit.",
        "Raise the memory limit in `resources`, or lower `spec.adapter.historyBlock`.",
    )
    IMAGE_PULL_ERROR = (
        "ImagePullError",
        "A container image cannot be pulled.",
        "Check the image name in the message, and the pull secret of the ServiceAccount.",
    )
    UNSCHEDULABLE = (
        "Unschedulable",
        "No node can take the pod.",
        "Ask for fewer resources, add nodes, or correct `nodeSelector` and `tolerations`.",
    )
    POD_EVICTED = "PodEvicted", "A node ran short of something and put the pod out.", "Set requests near real use."
    CONTAINER_START_ERROR = (
        "ContainerStartError",
        "A container cannot start.",
        "Read the message: a missing volume, Secret, or command in the image.",
    )
    CRASH_LOOP_BACK_OFF = (
        "CrashLoopBackOff",
        "A container fails again and again.",
        "Read the exit code and last log line in the message.",
    )
    UPLOAD_FAILED = (
        "UploadFailed",
        "An artifact could not be written, or its digest differs.",
        "Check that the identity may put objects under `spec.artifacts.storageUri`.",
    )

    # Evaluation and serving.
    GATES_PASSED = "GatesPassed", "Every gate was reached."
    GATE_FAILED = (
        "GateFailed",
        "A metric missed its gate; the revision that served before serves on.",
        "Compare `status.metrics` with `spec.evaluation.gates`; improve the data or the training, or lower the gate.",
    )
    EVALUATION_FAILED = (
        "EvaluationFailed",
        "The evaluation itself did not end well.",
        "Read the message and the log of its Job.",
    )
    SERVING = "Serving", "The revision answers requests."
    NO_REVISION = "NoRevision", "No revision has been trained yet.", "Wait for the first training."
    SERVING_NOT_READY = (
        "ServingNotReady",
        "Too few replicas are ready.",
        "Read the condition ServingReady for the cause.",
    )
    MODEL_LOAD_FAILED = (
        "ModelLoadFailed",
        "Triton started but could not load the model.",
        "Read the message; most often too little memory, or an image of another version.",
    )
    OLDER_THAN_POLICY = (
        "OlderThanPolicy",
        "The last good training is too long ago.",
        "See TrainingSucceeded for why the newer ones failed.",
    )

    # Experiments.
    RUNNING = "Running", "The experiment is going on."
    MODEL_NOT_FOUND = (
        "ModelNotFound",
        "A variant names a model that does not exist.",
        "Create it; order does not matter.",
    )
    METRIC_UNAVAILABLE = (
        "MetricUnavailable",
        "A metric gave no value.",
        "Check its event name, or the Prometheus address and query.",
    )
    MIRROR_COMPLETED = "MirrorCompleted", "Answers were compared on copies of requests; no user saw another one."
    SIGNIFICANT_WINNER = "SignificantWinner", "One variant is better, at the stated level."
    NO_DIFFERENCE = "NoDifference", "No difference was found with the planned sample."
    GUARDRAIL_VIOLATED = "GuardrailViolated", "A guardrail metric left its bounds.", "See the effect in status."
    SAMPLE_RATIO_MISMATCH = (
        "SampleRatioMismatch",
        "Users did not arrive in the stated proportion, so no verdict is trusted.",
        "Look for lost events, bots, or a variant that failed; then start a new experiment.",
    )
    OFFLINE_GATE_FAILED = "OfflineGateFailed", "A variant missed an offline gate; no traffic was sent to it."
    POLICY_NONE = "PolicyNone", "`promotionPolicy` is None, so nothing is promoted."
    AWAITING_APPROVAL = (
        "AwaitingApproval",
        "There is a winner and `promotionPolicy` is Manual.",
        "Pin the winner in `spec.serving.revision` of the model.",
    )


_R = Reason
_POD_REASONS: Final = (
    _R.OOM_KILLED,
    _R.IMAGE_PULL_ERROR,
    _R.UNSCHEDULABLE,
    _R.POD_EVICTED,
    _R.CONTAINER_START_ERROR,
    _R.CRASH_LOOP_BACK_OFF,
)
_USER_REASONS: Final = (
    _R.INVALID_SPEC,
    _R.DATASET_NOT_FOUND,
    _R.DATASET_INVALID,
    _R.CREDENTIALS_INVALID,
    _R.SECRET_NOT_FOUND,
    _R.BACKEND_NOT_INSTALLED,
    _R.CHILD_REFUSED,
    _R.REVISION_NOT_FOUND,
    _R.LOCAL_URI_NOT_SUPPORTED,
)
_CANNOT_START: Final = (_R.IMAGE_PULL_ERROR, _R.CONTAINER_START_ERROR)
CANNOT_START: Final = (_R.SECRET_NOT_FOUND, *_CANNOT_START)
"""Why a pod cannot start until a person acts, although nothing has failed for good."""
_SUSPENSION: Final = (_R.PENDING, _R.NOT_SUSPENDED, _R.SUSPENDED)
_RECONCILING: Final = (_R.PROGRESSING, _R.PROGRESSING_WITH_RETRY)

MODEL_CONDITIONS: Final[Mapping[ConditionType, tuple[Reason, ...]]] = MappingProxyType(
    {
        ConditionType.READY: (
            _R.PENDING,
            _R.SERVING,
            _R.PROGRESSING,
            _R.WAITING_FOR_QUOTA,
            _R.WAITING_FOR_PIN,
            _R.EXPERIMENT_RUNNING,
            _R.TRAINING_FAILED,
            _R.GATE_FAILED,
            _R.EVALUATION_FAILED,
            _R.SERVING_NOT_READY,
            _R.SUSPENDED,
            *_USER_REASONS,
            *_CANNOT_START,
        ),
        ConditionType.AVAILABLE: (_R.PENDING, _R.SERVING, _R.NO_REVISION, _R.SERVING_NOT_READY),
        ConditionType.RECONCILING: _RECONCILING,
        ConditionType.STALLED: (
            _R.TRAINING_FAILED,
            _R.GATE_FAILED,
            _R.EVALUATION_FAILED,
            _R.SERVING_NOT_READY,
            *_USER_REASONS,
            *_CANNOT_START,
        ),
        ConditionType.DATASET_READY: (
            _R.PENDING,
            _R.SUCCEEDED,
            _R.DATASET_NOT_FOUND,
            _R.DATASET_INVALID,
            _R.CREDENTIALS_INVALID,
            _R.SECRET_NOT_FOUND,
        ),
        ConditionType.ADMITTED: (_R.PENDING, _R.NO_QUEUE, _R.SUCCEEDED, _R.WAITING_FOR_QUOTA),
        ConditionType.TRAINING_SUCCEEDED: (
            _R.PENDING,
            _R.SUCCEEDED,
            _R.JOBS_RUNNING,
            _R.SUSPENDED,
            _R.PREEMPTED,
            _R.TRAINING_FAILED,
            _R.BACKOFF_LIMIT_EXCEEDED,
            _R.DEADLINE_EXCEEDED,
            *_POD_REASONS,
            *_USER_REASONS,
            _R.UPLOAD_FAILED,
        ),
        ConditionType.ARTIFACTS_STORED: (_R.PENDING, _R.SUCCEEDED, _R.UPLOAD_FAILED),
        ConditionType.EVALUATED: (_R.PENDING, _R.GATES_PASSED, _R.GATE_FAILED, _R.EVALUATION_FAILED),
        ConditionType.SERVING_READY: (
            _R.PENDING,
            _R.SERVING,
            _R.PROGRESSING,
            _R.NO_REVISION,
            _R.MODEL_LOAD_FAILED,
            _R.SECRET_NOT_FOUND,
            _R.DEADLINE_EXCEEDED,
            *_POD_REASONS,
        ),
        ConditionType.SUSPENDED: _SUSPENSION,
        ConditionType.STALE: (_R.OLDER_THAN_POLICY,),
    }
)
"""Conditions of a ThinkRecModel with their usual reasons; Admitted also mirrors the queue's own reason."""

EXPERIMENT_CONDITIONS: Final[Mapping[ConditionType, tuple[Reason, ...]]] = MappingProxyType(
    {
        ConditionType.READY: (
            _R.PENDING,
            _R.RUNNING,
            _R.PROGRESSING,
            _R.SUCCEEDED,
            _R.SUSPENDED,
            _R.INVALID_SPEC,
            _R.MODEL_NOT_FOUND,
            _R.REVISION_NOT_FOUND,
        ),
        ConditionType.SUCCEEDED: (
            _R.PENDING,
            _R.RUNNING,
            _R.SIGNIFICANT_WINNER,
            _R.NO_DIFFERENCE,
            _R.MIRROR_COMPLETED,
            _R.GUARDRAIL_VIOLATED,
            _R.DEADLINE_EXCEEDED,
            _R.SAMPLE_RATIO_MISMATCH,
            _R.OFFLINE_GATE_FAILED,
        ),
        ConditionType.RECONCILING: _RECONCILING,
        ConditionType.STALLED: (
            _R.INVALID_SPEC,
            _R.MODEL_NOT_FOUND,
            _R.REVISION_NOT_FOUND,
            _R.SERVING_NOT_READY,
            _R.METRIC_UNAVAILABLE,
            _R.EVALUATION_FAILED,
            _R.CHILD_REFUSED,
            _R.CREDENTIALS_INVALID,
        ),
        ConditionType.VARIANTS_READY: (
            _R.PENDING,
            _R.SUCCEEDED,
            _R.PROGRESSING,
            _R.MODEL_NOT_FOUND,
            _R.REVISION_NOT_FOUND,
            _R.SERVING_NOT_READY,
        ),
        ConditionType.OFFLINE_EVALUATED: (
            _R.PENDING,
            _R.JOBS_RUNNING,
            _R.GATES_PASSED,
            _R.OFFLINE_GATE_FAILED,
            _R.EVALUATION_FAILED,
        ),
        ConditionType.TRAFFIC_CONFIGURED: (
            _R.PENDING,
            _R.SUCCEEDED,
            _R.PROGRESSING,
            _R.SERVING_NOT_READY,
            _R.SUSPENDED,
        ),
        ConditionType.PROMOTED: (_R.PENDING, _R.SUCCEEDED, _R.POLICY_NONE, _R.AWAITING_APPROVAL),
        ConditionType.ROLLED_BACK: (
            _R.PENDING,
            _R.SIGNIFICANT_WINNER,
            _R.GUARDRAIL_VIOLATED,
            _R.SAMPLE_RATIO_MISMATCH,
            _R.NO_DIFFERENCE,
            _R.DEADLINE_EXCEEDED,
            _R.OFFLINE_GATE_FAILED,
        ),
        ConditionType.SUSPENDED: _SUSPENSION,
    }
)
"""Conditions of a ThinkRecExperiment with their reasons."""
