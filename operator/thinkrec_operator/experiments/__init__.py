# SPDX-License-Identifier: Apache-2.0
"""The decision about a ThinkRecExperiment: from what is observed to Jobs, a status and a verdict. All of it is pure.

observed     what a decision sees: the experiment, the models it names with their revisions, its own Jobs
variants     which revision each variant stands for, or what is missing
stages       the work of the offline comparison, with content keys that other experiments share
offline      its numbers: gates and verdict
status       conditions and the rest of the status;  events: what is told of a transition
work         where each stage stands;  children: their ConfigMaps and Jobs
reconcile    all of it together
"""
