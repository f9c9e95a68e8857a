# SPDX-License-Identifier: Apache-2.0
"""Stage `traces`: thinking activation data (ThinkRec, arXiv 2505.15091, section 3.2).

    pool      training samples that the base model gets wrong
    hints     every wording: the three steps, the right answer shown in several ways, and what betrays it
    dialogue  the conversation with the teacher, in rounds over many samples at once
    filters   which answers are kept, as pure functions
    work      what is done so far
    shares    several pods instead of one
    stage     the stage: asks until enough is kept, resumes per sample, writes the tables

What does not belong here: how a teacher is reached (thinkrec_trainer.teacher).
"""

from thinkrec_trainer.traces.stage import merge, run, share

__all__ = ["merge", "run", "share"]
