# SPDX-License-Identifier: Apache-2.0
"""The driver for Kubernetes: Kopf watches, the queue says what is due, `reconcile` what to do, and `apply` does it.

    handlers       what is listened to: the table of contents
    stateless      keeps Kopf from comparing what it watches
    runtime        the process: first list, workers, watches, end;  config: its environment variables
    workqueue      which model, or experiment, is due, at most once, with back-off and later visits
    worker         the loop over a queue;  controller: one visit of a model;  experiments: one of an experiment
    wishes         what experiments ask of the models they name
    view           what is known of the cluster;  objects: bodies, packed;  resources: kinds and addresses;
                   listed: items of a LIST, read as far as needed
    observe        view -> Observed, with jobs, pods, serving and progress as its parts
    apply          plan -> writes, with drift (is it still ours?), events and refusals (what is refused for good)
    unreadable     status of a model from another version
    api            every call to the apiserver;  errors: what it may answer;  credentials: who we are
    resync         our own LIST of everything;  listing: it stands for Kopf's;  echo: notices a dead watch
    health         probes and /metrics;  metrics, experiment_series: what is told there
    release        takes our finalizer off every model, for an uninstall
    main           the command line

Only `handlers`, `stateless`, `runtime` and `credentials` know Kopf;
only `api` and `credentials` know the Kubernetes client.
"""
