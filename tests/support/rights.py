# SPDX-License-Identifier: Apache-2.0
"""What the operator may do, and what neither it nor any other account of the chart may: two tables."""

from __future__ import annotations

WATCH = ("get", "list", "watch")
OWN = ("get", "list", "create", "patch", "delete")
EVERY_VERB = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection")
CONTRACT: dict[tuple[str, str], tuple[str, ...]] = {
    ("thinkrec.io", "thinkrecmodels"): (*WATCH, "patch"),
    ("thinkrec.io", "thinkrecexperiments"): WATCH,
    ("thinkrec.io", "thinkrecmodels/status"): ("patch",),
    ("thinkrec.io", "thinkrecexperiments/status"): ("patch",),
    ("thinkrec.io", "thinkrecmodels/finalizers"): ("update",),
    ("thinkrec.io", "thinkrecexperiments/finalizers"): ("update",),
    ("batch", "jobs"): (*OWN, "watch"),
    ("", "pods"): WATCH,
    ("", "pods/log"): ("get",),
    ("", "configmaps"): OWN,
    ("", "services"): OWN,
    ("", "events"): ("create", "patch"),
    ("apps", "deployments"): (*OWN, "watch"),
    ("apps", "controllerrevisions"): OWN,
    ("policy", "poddisruptionbudgets"): OWN,
    ("autoscaling", "horizontalpodautoscalers"): OWN,
    ("jobset.x-k8s.io", "jobsets"): (*OWN, "watch"),
    ("trainer.kubeflow.org", "trainjobs"): (*OWN, "watch"),
    ("kueue.x-k8s.io", "workloads"): WATCH,
}
"""Every right of the operator, and nothing beside it."""
RBAC = "rbac.authorization.k8s.io"
CLUSTERS_OWN = ("namespaces", "nodes", "serviceaccounts", "persistentvolumes")
FORBIDDEN = (
    *(("", "secrets", verb) for verb in EVERY_VERB),
    *(("", name, verb) for name in CLUSTERS_OWN for verb in EVERY_VERB),
    *(("", name, verb) for name in ("pods/exec", "pods/attach", "pods/portforward") for verb in ("create", "get")),
    *(("", "pods", verb) for verb in ("create", "patch", "delete", "deletecollection")),
    ("", "pods/eviction", "create"),
    ("", "serviceaccounts/token", "create"),
    ("", "serviceaccounts", "impersonate"),
    ("", "users", "impersonate"),
    ("", "nodes/proxy", "get"),
    ("", "configmaps", "deletecollection"),
    ("batch", "jobs", "deletecollection"),
    ("thinkrec.io", "thinkrecmodels", "create"),
    ("thinkrec.io", "thinkrecmodels", "update"),
    ("thinkrec.io", "thinkrecmodels", "delete"),
    ("thinkrec.io", "thinkrecexperiments", "patch"),
    ("thinkrec.io", "thinkrecmodels/scale", "patch"),
    ("kueue.x-k8s.io", "workloads", "patch"),
    ("kueue.x-k8s.io", "clusterqueues", "get"),
    *(
        ("rbac.authorization.k8s.io", name, verb)
        for name in ("roles", "clusterroles")
        for verb in (*EVERY_VERB, "bind")
    ),
    (RBAC, "clusterroles", "escalate"),
    (RBAC, "rolebindings", "create"),
    ("apiextensions.k8s.io", "customresourcedefinitions", "get"),
    ("admissionregistration.k8s.io", "validatingwebhookconfigurations", "create"),
    ("coordination.k8s.io", "leases", "create"),
    ("certificates.k8s.io", "certificatesigningrequests", "create"),
)
