# SPDX-License-Identifier: Apache-2.0
"""What the processes of the local driver find in their environment."""

from __future__ import annotations

import pytest

from thinkrec_operator.local.environment import computing, without_secrets


@pytest.mark.parametrize(
    "name",
    [
        "AWS_ACCESS_KEY_ID",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_PROFILE",
        "SOURCE_AWS_ACCESS_KEY_ID",
        "SOURCE_HF_TOKEN",
        "HF_TOKEN",
        "HUGGING_FACE_HUB_TOKEN",
        "OPENAI_API_KEY",
        "DB_PASSWORD",
        "GOOGLE_APPLICATION_CREDENTIALS",
        "hf_token",
    ],
)
def test_a_credential_is_left_out(name: str) -> None:
    assert without_secrets({name: "x", "PATH": "/bin"}) == {"PATH": "/bin"}


@pytest.mark.parametrize(
    "name", ["PATH", "HOME", "HF_HOME", "TOKENIZERS_PARALLELISM", "THINKREC_MAX_EXPLANATION_TOKENS", "LD_LIBRARY_PATH"]
)
def test_what_is_no_credential_stays(name: str) -> None:
    assert without_secrets({name: "x"}) == {name: "x"}


def test_threads_are_the_drivers_and_how_they_wait_is_the_users_if_they_said_so() -> None:
    found = computing({"OMP_NUM_THREADS": "64", "A": "b"}, 2)
    assert (found["OMP_NUM_THREADS"], found["OMP_WAIT_POLICY"], found["A"]) == ("2", "PASSIVE", "b")
    assert computing({"OMP_WAIT_POLICY": "ACTIVE"}, 2)["OMP_WAIT_POLICY"] == "ACTIVE"
