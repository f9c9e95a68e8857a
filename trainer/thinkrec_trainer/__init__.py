# SPDX-License-Identifier: Apache-2.0
"""The trainer: stages of the method as content-addressed jobs.

    cli.py          `python -m thinkrec_trainer run stage.json`, `fetch`, `show`
    protocol.py     stage.json -> verified inputs -> the stage -> published artifact -> termination message, exit code
    registry.py     which module runs which stage
    context.py      what a stage sees (StageContext) and returns (StageResult); errors.py: how it fails
    store/          artifacts in folders and S3; checkpoint.py, fetch.py: unfinished work, outside sources
    dataset/        ratings and items -> splits; keywords/: items -> keywords; teacher/: who writes text

May import `thinkrec_crds` and `thinkrec_inference.engine`, nothing else of this project.
"""
