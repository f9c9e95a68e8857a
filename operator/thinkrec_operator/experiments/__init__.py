# SPDX-License-Identifier: Apache-2.0
"""The decision about a ThinkRecExperiment: from what is observed to Jobs, a status and a verdict. All of it is pure.

observed     what a decision sees: the experiment, the models it names with their revisions, its own Jobs
variants     which revision each variant stands for, or what is missing
stages       the work of the offline comparison, with content keys that other experiments share
offline      its numbers: gates and verdict
online       the comparison on users, by these parts:
  places     who answers for each variant;  shares: how users are shared out, and what the gateway is told
  looks      when users are looked at, and the stage that does it;  simulated: a laptop's users
  verdict    what a look means
status       conditions and the rest of the status;  status_online: the part about users;  events: of transitions
work         where each stage stands;  children: their ConfigMaps and Jobs
reconcile    all of it together
"""
