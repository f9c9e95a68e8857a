# SPDX-License-Identifier: Apache-2.0
"""The environment becomes settings, or one message with every mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from thinkrec_crds.spec_serving import ServingLimits
from thinkrec_inference.settings import GatewaySettings, SettingsError, gateway_settings

NEEDED = {"THINKREC_BUNDLE_DIR": "/b", "THINKREC_EVENTS_DIR": "/e"}


def test_values_are_typed_and_empty_ones_are_unset() -> None:
    settings = gateway_settings({**NEEDED, "THINKREC_MAX_CANDIDATES": "50", "THINKREC_GATEWAY_HOST": "", "PATH": "x"})
    assert (settings.bundle_dir, settings.max_candidates, settings.gateway_host) == (Path("/b"), 50, "127.0.0.1")


def test_every_mistake_is_named_at_once_with_the_variable_and_the_value() -> None:
    with pytest.raises(SettingsError) as error:
        gateway_settings(
            {"THINKREC_EVENTS_DIR": "/e", "THINKREC_MAX_CANDIDATES": "lots", "THINKREC_TRITON_GRPC": "http://x"}
        )
    text = str(error.value)
    assert "THINKREC_BUNDLE_DIR is not set" in text
    assert "THINKREC_MAX_CANDIDATES='lots'" in text
    assert "THINKREC_TRITON_GRPC='http://x'" in text


def test_limits_default_to_those_of_the_resource() -> None:
    settings = GatewaySettings(bundle_dir=Path("/b"), events_dir=Path("/e"))
    limits = ServingLimits()
    for name in ("max_candidates", "deadline_milliseconds", "max_body_bytes", "max_explanation_tokens"):
        assert getattr(settings, name) == getattr(limits, name)
