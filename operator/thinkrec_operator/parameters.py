# SPDX-License-Identifier: Apache-2.0
"""Which part of a spec each stage reads: ModelSpec -> typed stage parameters. Pure; nothing here knows of keys."""

from __future__ import annotations

from thinkrec_crds.fields import as_float
from thinkrec_crds.model import ModelSpec
from thinkrec_crds.stages import (
    AdapterParameters,
    BaseModelRef,
    BundleParameters,
    CollaborativeParameters,
    Columns,
    DatasetParameters,
    EvaluateParameters,
    ExpertParameters,
    GateParameters,
    ItemColumns,
    ItemSource,
    KeywordsParameters,
    LoopParameters,
    LoraParameters,
    ProjectorParameters,
    TeacherParameters,
    TracesParameters,
)


def base_model(spec: ModelSpec) -> BaseModelRef:
    """Return the pinned base model as the user typed it."""
    return BaseModelRef(storage_uri=spec.base_model.storage_uri, revision=spec.base_model.revision or "")


def dataset(spec: ModelSpec, retrain: str | None) -> DatasetParameters:
    """Return what the dataset stage reads; `retrain` is the token of a training asked for without a spec change."""
    source = spec.dataset
    return DatasetParameters(
        storage_uri=source.storage_uri,
        revision=source.revision or "",
        format=source.format,
        columns=Columns.model_validate(source.columns.model_dump()),
        items=ItemSource(
            storage_uri=source.items.storage_uri,
            format=source.items.format,
            columns=ItemColumns.model_validate(source.items.columns.model_dump()),
        ),
        label_threshold=as_float(source.label_threshold),
        split=source.split,
        max_users=source.limits.max_users if source.limits else None,
        retrain=retrain,
    )


def teacher(spec: ModelSpec) -> TeacherParameters:
    """Return who writes reasoning and keywords."""
    source = spec.teacher
    return TeacherParameters(
        type=source.type,
        base_url=source.base_url,
        model=source.model,
        max_concurrency=source.max_concurrency,
        max_rounds=source.max_rounds,
        max_tokens=source.max_tokens,
    )


def keywords(spec: ModelSpec) -> KeywordsParameters:
    """Return what the keywords stage reads; the teacher and the base model only where an LLM writes them."""
    asks = spec.keywords.source == "LLM"
    return KeywordsParameters(
        source=spec.keywords.source,
        max_keywords=spec.keywords.max_keywords,
        teacher=teacher(spec) if asks else None,
        base_model=base_model(spec) if asks else None,
    )


def collaborative(spec: ModelSpec) -> CollaborativeParameters:
    """Return what the CF stage reads."""
    return CollaborativeParameters(
        encoder=spec.collaborative.encoder,
        dimension=spec.collaborative.effective_dimension,
        epochs=spec.collaborative.epochs,
        checkpoint_uri=spec.collaborative.checkpoint_uri,
    )


def traces(spec: ModelSpec) -> TracesParameters:
    """Return what the traces stage reads."""
    return TracesParameters(
        base_model=base_model(spec),
        teacher=teacher(spec),
        pool_size=spec.traces.pool_size,
        max_samples=spec.traces.max_samples,
        history_length=spec.dataset.history_length,
    )


def _loop(spec: ModelSpec, *, steps: int | None, epochs: int | None, learning_rate: str) -> LoopParameters:
    """Return one optimisation run; with neither steps nor epochs it is one epoch."""
    return LoopParameters(
        steps=steps,
        epochs=epochs if steps is not None or epochs is not None else 1,
        learning_rate=as_float(learning_rate),
        warmup_steps=spec.adapter.warmup_steps,
        history_block=spec.adapter.history_block,
    )


def adapter(spec: ModelSpec) -> AdapterParameters:
    """Return what stage 1 reads."""
    source = spec.adapter
    return AdapterParameters(
        base_model=base_model(spec),
        lora=LoraParameters(
            rank=source.lora.rank,
            alpha=source.lora.alpha,
            dropout=as_float(source.lora.dropout),
            target_modules=source.lora.target_modules,
        ),
        loop=_loop(spec, steps=source.steps, epochs=source.epochs, learning_rate=source.learning_rate),
        trace_share=as_float(source.trace_share),
        history_length=spec.dataset.history_length,
        score=spec.serving.score,
    )


def projector(spec: ModelSpec) -> ProjectorParameters:
    """Return what stage 2 reads."""
    source = spec.projector
    return ProjectorParameters(
        base_model=base_model(spec),
        hidden_multiplier=source.hidden_multiplier,
        loop=_loop(spec, steps=source.steps, epochs=None, learning_rate=source.learning_rate),
        history_length=spec.dataset.history_length,
        score=spec.serving.score,
    )


def fixed_expert_count(spec: ModelSpec) -> int | None:
    """Return K where the spec fixes it, None where the gate stage chooses it."""
    return len(spec.experts.items) if spec.experts.items is not None else spec.experts.count


def gate(spec: ModelSpec) -> GateParameters:
    """Return what the gate stage reads."""
    method, count = spec.experts.grouping.method, fixed_expert_count(spec)
    if spec.experts.auto is None:
        return GateParameters(method=method, count=count)
    return GateParameters(method=method, min_count=spec.experts.auto.min, max_count=spec.experts.auto.max)


def expert(spec: ModelSpec, group: int) -> ExpertParameters:
    """Return what stage 3 reads for one group (0-based)."""
    source = spec.experts
    return ExpertParameters(
        base_model=base_model(spec),
        group=group,
        name=source.items[group].name if source.items is not None else f"expert-{group}",
        loop=_loop(spec, steps=source.steps, epochs=None, learning_rate=source.learning_rate),
        history_length=spec.dataset.history_length,
        score=spec.serving.score,
    )


def bundle(spec: ModelSpec) -> BundleParameters:
    """Return what the bundle stage reads."""
    threshold = spec.gate.hard_route_threshold
    return BundleParameters(
        base_model=base_model(spec),
        temperature=as_float(spec.gate.temperature),
        hard_route_threshold=as_float(threshold) if threshold is not None else None,
        fusion=spec.serving.fusion,
        score=spec.serving.score,
        history_length=spec.dataset.history_length,
        expert_names=tuple(item.name for item in spec.experts.items) if spec.experts.items is not None else None,
    )


def evaluate(spec: ModelSpec) -> EvaluateParameters:
    """Return what the evaluation reads; what a gate needs is computed even where `metrics` leaves it out."""
    asked = (*spec.evaluation.metrics, *(gate.metric for gate in spec.evaluation.gates))
    return EvaluateParameters(
        max_users=spec.evaluation.max_users,
        max_rows_per_user=spec.evaluation.max_rows_per_user,
        sampled_explanations=spec.evaluation.sampled_explanations,
        metrics=tuple(dict.fromkeys(asked)),
    )
