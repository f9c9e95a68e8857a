# SPDX-License-Identifier: Apache-2.0
"""The conversation with a teacher whose answers are known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from thinkrec_crds.prompt import ItemText
from thinkrec_trainer.blocks import Row
from thinkrec_trainer.teacher import ChatMessage, Completion, Usage
from thinkrec_trainer.traces.dialogue import Case, converse
from thinkrec_trainer.traces.filters import Limits, Why
from thinkrec_trainer.traces.hints import DEMONSTRATION
from thinkrec_trainer.traces.pool import Sample

CATALOGUE = [ItemText(0, "Sunny Road", ("comedy",)), ItemText(1, "Dark Road", ("horror",)), ItemText(2, "New Road")]
REASON = "The user enjoys such light stories."


@dataclass
class Scripted:
    """Answers each turn from a script: turn number -> one text for all."""

    script: Sequence[str]
    seen: list[list[list[ChatMessage]]] = field(default_factory=list)
    usage: Usage = field(default_factory=Usage)
    identity: str = "scripted"
    continues: bool = False

    def complete(self, prompts: Sequence[Sequence[ChatMessage]]) -> list[Completion]:
        """The script's next line."""
        self.seen.append([list(prompt) for prompt in prompts])
        text = self.script[len(self.seen) - 1]
        refused = text == "REFUSED"
        return [Completion("" if refused else text, 10, 5, "refused" if refused else "stop") for _ in prompts]

    def close(self) -> None:
        """Nothing to free."""


def case(liked: bool, user: int = 0) -> Case:
    """A user who liked the first item and disliked the second meets the third."""
    limits = Limits(tokens=50, count_tokens=lambda text: len(text.split()), title=CATALOGUE[2].title, later_titles=())
    return Case(Sample(user, 2, 2, 2, liked), CATALOGUE[2], (Row(0, True), Row(1, False)), limits)


def talk(
    cases: list[Case], *script: str, max_rounds: int = 3, continues: bool = False
) -> tuple[list[object], Scripted]:
    """Hold the conversations; return what is told of each outcome."""
    teacher = Scripted(script, continues=continues)
    found = converse(cases, CATALOGUE, teacher, max_rounds=max_rounds, pause=lambda: None)
    return [(one.rounds, one.decision, one.reason, one.why) for one in found], teacher


def test_an_agreeing_answer_ends_after_three_turns() -> None:
    """Analyse, prefer, decide; no hint."""
    found, teacher = talk([case(True)], "light", "light things", f"Yes. {REASON}")
    assert found == [(1, "Yes", REASON, None)]
    first = teacher.seen[0][0][-1].content
    assert "- Sunny Road (comedy): liked" in first
    assert "- Dark Road (horror): disliked" in first
    assert "New Road" not in first
    assert [message.role for message in teacher.seen[2][0]] == [
        "system",
        "user",
        "assistant",
        "user",
        "assistant",
        "user",
    ]


def test_the_answer_is_shown_until_the_teacher_agrees() -> None:
    """Two hints in different wordings; the third decision agrees."""
    found, teacher = talk([case(False)], "a", "b", f"Yes. {REASON}", "Maybe.", f"No. {REASON}")
    assert found == [(3, "No", REASON, None)]
    hints = [teacher.seen[turn][0][-1].content for turn in (3, 4)]
    assert hints[0] != hints[1]
    assert all("No" in text for text in hints)
    assert "No." not in teacher.seen[2][0][-1].content


def test_a_teacher_that_continues_gets_the_answers_beginning() -> None:
    """Free in the first decision, with the right answer in a hinted one; the record holds the whole answers."""
    found, teacher = talk([case(False)], "light", "fun", "Yes. x", "stories like these.", continues=True)
    assert found == [(2, "No", "The user avoids stories like these.", None)]
    assert [turn[0][-1].content for turn in teacher.seen] == [
        "The liked ones are",
        "The user prefers",
        "Answer:",
        "No. The user avoids",
    ]
    said = [message.content for message in teacher.seen[-1][0] if message.role == "assistant"]
    assert said[: len(DEMONSTRATION)] == [answer for _, answer in DEMONSTRATION]
    assert said[len(DEMONSTRATION) :] == [
        "The liked ones are light",
        "The user prefers fun",
        "Answer: Yes. x",
        "No. The user avoids",
    ]


def test_a_teacher_that_never_agrees_is_given_up() -> None:
    """After max_rounds decisions."""
    found, teacher = talk([case(False)], "a", "b", "Yes. x", "Yes. x", max_rounds=2)
    assert found == [(2, "Yes", "x", Why.NEVER_AGREES)]
    assert len(teacher.seen) == 4


def test_a_rejected_answer_is_asked_again() -> None:
    """It agreed, but it spoke of the label."""
    found, _ = talk([case(True)], "a", "b", "Yes. The right answer is clear.", f"Yes. {REASON}")
    assert found == [(2, "Yes", REASON, None)]


def test_a_refused_prompt_ends_that_conversation() -> None:
    """Too long for the teacher: no further turn."""
    found, teacher = talk([case(True)], "REFUSED")
    assert found == [(0, "", "", Why.REFUSED)]
    assert len(teacher.seen) == 1


def test_conversations_share_their_turns_and_finished_ones_leave() -> None:
    """Of two samples one agrees at once; only the other one sees a hint."""
    found, teacher = talk([case(True, user=1), case(False, user=2)], "a", "b", f"Yes. {REASON}", f"No. {REASON}")
    assert [outcome[0] for outcome in found] == [1, 2]  # type: ignore[index]
    assert [len(turn) for turn in teacher.seen] == [2, 2, 2, 1]
