# SPDX-License-Identifier: Apache-2.0
"""The ConfigMap by which a model's gateway shares out users among the variants of experiments. Pure."""

from __future__ import annotations

from thinkrec_crds.traffic import MOST_EXPERIMENTS, TRAFFIC_FILE, TrafficTable
from thinkrec_operator.children import owner_of
from thinkrec_operator.names import traffic_config_map_name
from thinkrec_operator.observed import Observed
from thinkrec_operator.plan import ConfigMapChild


def traffic_children(observed: Observed) -> tuple[ConfigMapChild, ...]:
    """Return the ConfigMap, or nothing where no experiment ever shared out this model's users.

    It stays, empty, when the last one has ended: a gateway then reads that there is none.
    """
    wanted = observed.experiments.traffic[:MOST_EXPERIMENTS]
    if observed.settings.laptop or not (wanted or observed.traffic_shared):
        return ()
    owner = owner_of(observed)
    text = TrafficTable(experiments=wanted).to_json(indent=2) + "\n"
    return (ConfigMapChild(traffic_config_map_name(owner.name), owner, ((TRAFFIC_FILE, text),), "traffic"),)
