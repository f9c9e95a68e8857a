# SPDX-License-Identifier: Apache-2.0
"""Asking a teacher for keywords, chunk by chunk, through the cache."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from thinkrec_crds.stages import BaseModelRef, KeywordsParameters, TeacherParameters
from thinkrec_trainer.context import StageContext
from thinkrec_trainer.errors import BadInput
from thinkrec_trainer.fetch import base_model_uri, source_digest
from thinkrec_trainer.keywords.cache import KeywordCache
from thinkrec_trainer.keywords.text import from_attributes, noise_words, parse_answer
from thinkrec_trainer.store import join, open_blobs, parent
from thinkrec_trainer.teacher import ChatMessage, Completion, Teacher, make_teacher

if TYPE_CHECKING:
    from thinkrec_inference.engine.device import Device

MAX_NEW_TOKENS = 32
"""An answer of ten keywords fits; more would be sentences (method.md, stage 2)."""
BEAMS = 2
CHUNK_ITEMS = 64
"""Items per cache part: what a killed run loses at most."""
CLEANING_VERSION = 1
"""Raise it when text.py changes what an answer means."""
_SYSTEM = "You write keywords for a catalogue: genres, subjects, moods, settings. No sentences, no advertising."
_QUESTION = "{about}\nAt most {limit} keywords, separated by commas."
_EXAMPLES = (
    ("Title: The Secret Garden\nKnown: Children", "walled garden, Yorkshire, orphan, healing"),
    ("Title: The Martian\nKnown: Sci-Fi, Adventure", "Mars, astronaut, botany, rescue mission"),
)
"""Rare words on purpose: a small model repeats the examples where it knows nothing, and what it repeats is dropped."""
_EXAMPLE_WORDS = frozenset(word.casefold() for _, answer in _EXAMPLES for word in answer.split(", "))


@dataclass(frozen=True, slots=True)
class Item:
    """What keywords are made from."""

    digest: str
    title: str
    attributes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Respondent:
    """A teacher and how it was set up."""

    teacher: Teacher
    base_digest: str | None = None
    """Digest of the base model's files with type Self."""
    device: str = "cpu"
    precision: str = "Float32"


@dataclass(frozen=True, slots=True)
class Made:
    """Keywords by item digest, and what they cost."""

    keywords: dict[str, tuple[str, ...]]
    counts: dict[str, int]
    source_digests: dict[str, str]
    device: str = "cpu"
    precision: str = "Float32"


def ask(context: StageContext, parameters: KeywordsParameters, items: Sequence[Item]) -> Made:
    """Answer from the cache, then from the teacher; each chunk is in the store before the next one is asked for.

    An answer without a single usable keyword, and a refused prompt, fall back to the item's attributes (counted).
    """
    with opened(context, parameters) as respondent:
        cache = open_cache(context, parameters, respondent)
        distinct = {item.digest: item for item in items}
        known = {digest: words for digest, words in cache.read().items() if digest in distinct}
        missing = [item for digest, item in distinct.items() if digest not in known]
        counts = {"cached": len(known), "generated": len(missing), "fallbacks": 0, "refused": 0}
        for start in range(0, len(missing), CHUNK_ITEMS):
            context.progress.update(len(known), len(distinct), "asking the teacher")
            known |= _ask_chunk(missing[start : start + CHUNK_ITEMS], parameters, respondent.teacher, cache, counts)
            context.checkpoint.raise_if_interrupted()  # finished chunks are in the cache: nothing else to save
        context.progress.update(len(known), len(distinct), "keywords made")
        usage = respondent.teacher.usage
    counts |= {"prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens}
    sources = {"base_model": respondent.base_digest} if respondent.base_digest else {}
    return Made(known, counts, sources, respondent.device, respondent.precision)


def prompt(item: Item, limit: int) -> list[ChatMessage]:
    """Return the conversation: rules, two examples, the item."""
    known = f"\nKnown: {', '.join(item.attributes)}" if item.attributes else ""
    messages = [ChatMessage("system", _SYSTEM)]
    for about, answer in _EXAMPLES:
        messages.append(ChatMessage("user", _QUESTION.format(about=about, limit=limit)))
        messages.append(ChatMessage("assistant", answer))
    messages.append(ChatMessage("user", _QUESTION.format(about=f"Title: {item.title}{known}", limit=limit)))
    return messages


def fingerprint(parameters: KeywordsParameters, identity: str, base_digest: str | None) -> str:
    """Return 40 hex digits of everything that decides what an item's keywords are."""
    noise = noise_words()
    how = [CLEANING_VERSION, _SYSTEM, _QUESTION, _EXAMPLES, parameters.max_keywords, identity, base_digest]
    body = json.dumps([*how, noise.anywhere, sorted(noise.alone)])
    return hashlib.sha256(body.encode()).hexdigest()[:40]


def open_cache(context: StageContext, parameters: KeywordsParameters, respondent: Respondent) -> KeywordCache:
    """Return the cache of this way of making keywords, shared by all runs with the same storage URI."""
    name = fingerprint(parameters, respondent.teacher.identity, respondent.base_digest)
    uri = join(parent(parent(context.spec.output_uri)), ".cache", "keywords", name)
    return KeywordCache(open_blobs(uri, context.spec.store))


@contextlib.contextmanager
def opened(context: StageContext, parameters: KeywordsParameters) -> Iterator[Respondent]:
    """Yield the teacher that the spec asks for; its weights are freed afterwards."""
    if parameters.teacher is None:
        raise BadInput("keywords source LLM needs a teacher: set spec.teacher")
    brief = parameters.teacher.model_copy(update={"max_tokens": min(MAX_NEW_TOKENS, parameters.teacher.max_tokens)})
    respondent = _remote(context, brief) if brief.type == "OpenAI" else _local(context, brief, parameters.base_model)
    try:
        yield respondent
    finally:
        respondent.teacher.close()


def _remote(context: StageContext, brief: TeacherParameters) -> Respondent:
    return Respondent(make_teacher(brief, None, seed=context.spec.seed))


def _local(context: StageContext, brief: TeacherParameters, base_model: BaseModelRef | None) -> Respondent:
    if base_model is None:
        raise BadInput("keywords with teacher type Self need the base model: set spec.baseModel")
    folder = _safetensors(context.fetch(base_model_uri(base_model)))
    device = _device(context)
    teacher = make_teacher(
        brief, folder, seed=context.spec.seed, device=str(device.device), dtype=device.dtype, beams=BEAMS
    )
    return Respondent(teacher, source_digest(folder), device.device.type, device.precision)


def _safetensors(folder: Path) -> Path:
    from thinkrec_inference.engine.base_model import BaseModelError, ensure_safetensors  # torch only where it is needed

    try:
        return ensure_safetensors(folder)
    except BaseModelError as error:
        raise BadInput(str(error)) from error


def _device(context: StageContext) -> Device:
    from thinkrec_inference.engine.device import resolve, set_threads  # torch only where it is needed

    set_threads(context.spec.compute)
    try:
        return resolve(context.spec.compute)
    except ValueError as error:
        raise BadInput(str(error)) from error


def _ask_chunk(
    chunk: Sequence[Item], parameters: KeywordsParameters, teacher: Teacher, cache: KeywordCache, counts: dict[str, int]
) -> dict[str, tuple[str, ...]]:
    limit = parameters.max_keywords
    answers = teacher.complete([prompt(item, limit) for item in chunk])
    fresh: dict[str, tuple[str, ...]] = {}
    refused: dict[str, tuple[str, ...]] = {}
    for item, answer in zip(chunk, answers, strict=True):
        words = _words(item, answer, limit)
        counts["refused"] += answer.error is not None
        counts["fallbacks"] += not words
        (refused if answer.error else fresh)[item.digest] = words or from_attributes(item.attributes, limit)
    cache.append(fresh)  # refusals may be cured by another server setting: they are asked again next time
    return fresh | refused


def _words(item: Item, answer: Completion, limit: int) -> tuple[str, ...]:
    text = answer.text
    if answer.finish_reason == "length":  # the last word may be cut in half
        text = text.rpartition(",")[0] or text
    words = parse_answer(text, title=item.title, limit=limit + len(_EXAMPLE_WORDS))
    own = f"{item.title} {' '.join(item.attributes)}".casefold()
    return tuple(word for word in words if word.casefold() not in _EXAMPLE_WORDS or word.casefold() in own)[:limit]
