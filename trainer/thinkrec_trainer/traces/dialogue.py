# SPDX-License-Identifier: Apache-2.0
"""The conversation with the teacher, held for many samples at once: each turn is one call with all their prompts.

Analyse the history, state preferences, decide on the target; while the answer misses the label or is rejected, show the
right answer in another wording and ask again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from thinkrec_crds.prompt import ItemText
from thinkrec_trainer.blocks import Row
from thinkrec_trainer.teacher import ChatMessage, Completion, Teacher
from thinkrec_trainer.traces import hints
from thinkrec_trainer.traces.filters import Answer, Limits, Why, read_answer, rejection
from thinkrec_trainer.traces.pool import Sample


@dataclass(frozen=True, slots=True)
class Case:
    """A sample with everything its conversation needs."""

    sample: Sample
    item: ItemText
    history: Sequence[Row]
    limits: Limits


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a conversation ended."""

    sample: Sample
    rounds: int
    """Decisions asked for: 1 without any hint."""
    decision: str
    """Yes, No, or empty when the last answer began with neither."""
    reason: str
    why: Why | None
    """None: kept."""


@dataclass(slots=True)
class Conversation:
    """One sample's conversation so far."""

    case: Case
    messages: list[ChatMessage] = field(default_factory=lambda: [ChatMessage("system", hints.SYSTEM)])
    opening: str = ""
    rounds: int = 0
    answer: Answer = field(default_factory=lambda: Answer(None, ""))
    why: Why | None = Why.NEVER_AGREES

    def ask(self, text: str, opening: str) -> None:
        """Add the user's turn; `opening` is how the answer begins where the teacher continues a begun one."""
        self.messages.append(ChatMessage("user", text))
        self.opening = opening

    def prompt(self, *, continues: bool) -> list[ChatMessage]:
        """Return what the teacher gets; one that continues sees a made-up user's conversation first."""
        if not continues:
            return self.messages
        system, *rest = self.messages
        return [system, *_demonstration(), *rest, ChatMessage("assistant", self.opening)]

    def whole(self, completion: Completion) -> Completion:
        """Return a continuation together with its beginning."""
        gap = "" if completion.text[:1] in ("", "'", ",", ".", ";") else " "
        return replace(completion, text=f"{self.opening}{gap}{completion.text}")

    def take(self, completion: Completion) -> bool:
        """Add the teacher's turn; return False when it refused the prompt."""
        self.messages.append(ChatMessage("assistant", completion.text))
        if completion.finish_reason == "refused":
            self.why = Why.REFUSED
        return self.why is not Why.REFUSED

    def judge(self, completion: Completion) -> None:
        """Read a decision."""
        cut = completion.finish_reason == "length"
        self.rounds += 1
        self.answer = read_answer(completion.text, cut=cut)
        self.why = rejection(self.answer, self.case.sample.liked, self.case.limits, cut=cut)

    def outcome(self) -> Outcome:
        """Return the end as it is."""
        decision = {True: "Yes", False: "No", None: ""}[self.answer.liked]
        return Outcome(self.case.sample, self.rounds, decision, self.answer.reason, self.why)


def converse(
    cases: Sequence[Case],
    catalogue: Sequence[ItemText],
    teacher: Teacher,
    *,
    max_rounds: int,
    pause: Callable[[], None],
) -> list[Outcome]:
    """Hold the conversations of some cases; `pause` is called before each turn and may raise Interrupted."""
    talks = [Conversation(case) for case in cases]
    open_talks = talks
    for wording, opening in ((hints.ANALYSE, hints.ANALYSE_OPENING), (hints.PREFER, hints.PREFER_OPENING)):
        for talk in open_talks:
            talk.ask(wording.format(history=hints.describe_history(talk.case.history, catalogue)), opening)
        open_talks = _turn(open_talks, teacher, pause)
    for number in range(max_rounds):
        for place, talk in enumerate(open_talks):
            talk.ask(*_question(talk.case, number, place))
        open_talks = [talk for talk in _turn(open_talks, teacher, pause, decide=True) if talk.why is not None]
    return [talk.outcome() for talk in talks]


def _demonstration() -> list[ChatMessage]:
    return [
        message
        for question, answer in hints.DEMONSTRATION
        for message in (ChatMessage("user", question), ChatMessage("assistant", answer))
    ]


def _question(case: Case, number: int, place: int) -> tuple[str, str]:
    """Return the question of a decision round and how an answer may begin."""
    if number:
        liked, wording = case.sample.liked, number - 1 + place
        return hints.hint(case.item, liked, number=wording), hints.hint_opening(liked, number=wording)
    return hints.DECIDE.format(item=hints.describe_item(case.item)), hints.DECIDE_OPENING


def _turn(
    talks: Sequence[Conversation], teacher: Teacher, pause: Callable[[], None], *, decide: bool = False
) -> list[Conversation]:
    """Let the teacher answer all; return those that it did not refuse."""
    if not talks:
        return []
    pause()
    completions = teacher.complete([talk.prompt(continues=teacher.continues) for talk in talks])
    accepted = []
    for talk, found in zip(talks, completions, strict=True):
        completion = talk.whole(found) if teacher.continues else found
        if talk.take(completion):
            accepted.append(talk)
            if decide:
                talk.judge(completion)
    return accepted
