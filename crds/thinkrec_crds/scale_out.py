# SPDX-License-Identifier: Apache-2.0
"""How one stage becomes several processes: which kinds do, and the variables that tell a process its part.

Shards: the pods of an Indexed Job, each with a share of the work that no other pod needs meanwhile. Processes: those
of one training under torchrun, which exchange gradients at each step. A kind is one or the other, never both.
"""

from __future__ import annotations

from thinkrec_crds.stage_kinds import StageKind

SHARDED_KINDS = frozenset(
    {StageKind.KEYWORDS, StageKind.TRACES, StageKind.EVALUATE, StageKind.SCORE, StageKind.ANALYSE}
)
"""May run as N pods: `python -m thinkrec_trainer run` in each."""
DISTRIBUTED_KINDS = frozenset({StageKind.ADAPTER, StageKind.PROJECTOR, StageKind.EXPERT})
"""May run as W processes: `python -m thinkrec_trainer torchrun` in each pod."""

INDEX_VARIABLE = "JOB_COMPLETION_INDEX"
"""0-based number of the pod; Kubernetes sets it in every pod of an Indexed Job."""
SHARD_COUNT_VARIABLE = "THINKREC_SHARD_COUNT"
"""N, the Job's completions; absent or 1: the process does the whole stage."""
LARGEST_SHARD_COUNT = 1024
"""As `spec.training.nodes`: each finishing pod looks at the manifest of every shard."""

NODES_VARIABLE, PROCESSES_VARIABLE = "PET_NNODES", "PET_NPROC_PER_NODE"
NODE_RANK_VARIABLE = "PET_NODE_RANK"
"""Absent: INDEX_VARIABLE."""
MASTER_ADDRESS_VARIABLE, MASTER_PORT_VARIABLE = "PET_MASTER_ADDR", "PET_MASTER_PORT"
"""torchrun's own variables, which Kubeflow's TrainJob sets too: pods, processes in each, this pod's number, and where
pod 0 listens."""
RENDEZVOUS_VARIABLE = "THINKREC_RENDEZVOUS_SECONDS"
"""How long the processes wait for each other at the start before they give up with 75; default 600."""
