# SPDX-License-Identifier: Apache-2.0
"""The trainer: stages of the method as content-addressed jobs.

  From stage.json to a published artifact
    cli             `python -m thinkrec_trainer run stage.json`, `torchrun`, `clean`, `ship-events` and others
    protocol        stage.json -> verified inputs -> the stage -> artifact, termination message, exit code
    publication     a stage function's files -> manifest -> store;  termination: what the operator is told
    shards          one stage in several pods, each with a share
    registry        which module runs which stage
    context         what a stage sees (StageContext) and returns (StageResult);  errors: how it fails
    checkpoint      unfinished work in the store;  progress, logs: JSON lines, secrets masked
    fetch           outside sources;  delivery: artifacts and sources into a folder, for serving pods
    clean           artifacts that nobody needs leave the store
    store/          artifacts in folders and S3
    events/         what gateways log: shipped into the store, and read from there

  Stages: a module, or a package where one file is not enough
    dataset/  keywords/  collaborative (its encoders/)  traces/  adapter  projector  gate (its grouping)  expert
    bundle    evaluate (its evaluation/, metrics/, bootstrap, report/)
    teacher/  whoever writes keywords and reasoning

  Stages of an experiment
    score     one variant on the rows that all are compared on
    compare   the variants' scores measured and set against control (its comparison/)
    analyse   one look at what real users did (its online/; analysis/: the statistics, pure)
    simulate  users for an experiment on a laptop (its simulation/)

  Training the language model, bottom up
    interactions    one split's rows as arrays;  timelines: each user's, in time order
    blocks          targets of one user that share a history;  samples: blocks as tokens and weights
    batches         blocks as tensors with their tree mask;  forward: scores and losses of them
    lora            adapters in PEFT's layout
    cursor          data order and randomness by place;  run_state: what a checkpoint holds
    distributed     several processes that train one model;  launch: starts them with torchrun
    validation      AUC and UAUC while training
    loop            the one training loop;  workbench: what adapter, projector and experts set up alike

May import `thinkrec_crds` and `thinkrec_inference.engine`, nothing else of this project.
"""
