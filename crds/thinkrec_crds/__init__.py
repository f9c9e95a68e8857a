# SPDX-License-Identifier: Apache-2.0
"""The contract: everything that one component tells another, or that a person types. All components import it.

Types and pure functions belong here; no I/O beyond writing the generated files, no torch, no Kubernetes client, and
nothing of the components, which import-linter enforces. Bottom up:

    contract           the base class: frozen, camelCase on the wire, unknown fields refused
    rules              rules across fields: the CEL text for the apiserver beside the same predicate in Python
    fields             bounded text, numbers without floats, lists with a merge type
    group              names that other systems see: API group, kinds, labels, annotations
    conditions         condition types and reasons, each with meaning and remedy
    exit_codes         exit codes of the `thinkrec` command, each with meaning and remedy

  What a person writes
    spec_data, spec_learning, spec_training, spec_serving    the parts of a ThinkRecModel's spec
    model, model_status                                      ThinkRecModel, and what the operator observed of it
    experiment, experiment_spec, analysis_spec, experiment_status    ThinkRecExperiment
    manifest           YAML -> values with their lines
    validation         values -> resources, or every problem at once
    explain, problems  a pydantic error -> a sentence and a remedy, without secrets

  What components tell each other
    stage_kinds        the stages, and the version of what their output means
    stages             stage.json, and the key that names the work
    artifact           manifest, termination message, progress line, exit codes of a stage
    scale_out          which stages become several processes, and what tells each its part
    clean              clean.json: the artifacts that nobody needs any more
    bundle, prompt     the index of a bundle; the prompt template and its segments
    evaluation         what the evaluation found;  comparison, findings: what an experiment found offline, and of users
    flat_numbers       the same as flat numbers, for a termination message
    engine_api         gateway <-> Triton models <-> engine
    gateway_api        what a client reads of the gateway's answers
    event_log          the segments of feedback and exposures: gateway -> shipper -> analysis
    traffic            traffic.json: the experiments whose users a gateway shares out
    buckets            experiment and user -> one of 10 000 buckets -> variant, and the shares that follow

  What is generated from the types (`python -m thinkrec_crds`)
    schema             the CRDs
    reference          docs/reference/
    troubleshooting    docs/troubleshooting.md
    markdown           pieces of those pages
"""
