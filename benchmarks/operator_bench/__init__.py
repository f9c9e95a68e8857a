# SPDX-License-Identifier: Apache-2.0
"""Parts of benchmarks/operator.py.

bulk        many writes at once;  watching: when objects and their changes arrive at a watch
operators   the operator process as it is measured: CPU, memory, metrics
copies      thousands of copies of a model and its children, put into the database
world       a control plane with thinkrec's CRDs, and the template that a real training leaves
population  thousands of models that are trained and served
scale       steady state, warm restart, memory
latency     apply -> first Job, a Job's end -> the next Job
trainer     Kubeflow Trainer beside us: the same number of children
report      targets, table, JSON
"""
