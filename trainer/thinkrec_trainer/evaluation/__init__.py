# SPDX-License-Identifier: Apache-2.0
"""Parts of the `evaluate` stage: which rows, which scorers, the passes through the model, the measuring, the texts.

sample        test rows and the past that a prompt may show
variants      rows of the table -> scoring jobs, equal jobs once
passes        jobs -> scores, with progress and checkpoints
comparator    scores of the revision now serving
shares        scores as a file: of all rows, or of one pod of several
measure       scores -> report (pure)
explanations  sampled explanations and their checks
"""
