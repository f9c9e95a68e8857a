# SPDX-License-Identifier: Apache-2.0
"""The decision and its drivers: from a ThinkRecModel to Jobs, revisions and a served model.

    graph, parameters      pure: spec -> stages with typed parameters, inputs and content keys
    memo                   pure from outside: what follows from a spec alone, remembered by its content
    observed, plan         what a decision sees, and what it wants: frozen values, no behaviour
    unsupported            pure: spec -> what it asks for in vain
    reconcile              pure: observed -> plan; `work`, `children`, `revisions`, `status`, `report`, `events` are its
                           parts;  names: of everything it makes
    board, failure         conditions as a decision collects them;  why there is no going on
    experiments/           the same for a ThinkRecExperiment; pure
    traffic                pure: how the model's gateway shares out users among experiments' variants
    deletion               pure: the plan of a model that is being deleted
    schedule, turn         pure: cron -> next time;  whether a scheduled training starts now
    manifests/             pure: children of a plan -> Kubernetes objects
    progress               pure: the newest progress line of a log, for both drivers
    cluster/               the driver for Kubernetes: Kopf watches, a queue, server-side apply
    local/                 the driver without a cluster: subprocesses, a state folder, a live tree
    cli/                   the `thinkrec` command

Only `thinkrec_crds` is imported; trainer and inference are started as processes.
"""
