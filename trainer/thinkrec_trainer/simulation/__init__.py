# SPDX-License-Identifier: Apache-2.0
"""Users for an experiment on a laptop, where there are none: what they would have done, as a gateway would log it.

    draws        randomness as a function of seed, purpose, person and visit
    tastes       what each test user likes, and how each variant scores it
    names        what a person is called, and whose taste that tells
    people       who comes, when, how often, and whose user he or she is
    lists        what a visitor could be shown, and what a variant shows
    reactions    what visitors do
    agreement    how far a variant's list is from control's, for a Mirror
    records      exposures, feedback and mirrored requests as tables
    segments     tables into the folders of an event log

The model of behaviour:

1. Person n has the taste of one test user, drawn from n: likes what that user's held-out rows say he or she liked. The
   person is called `sim-000123~` and that user's id, and counts for that user's group. The person comes first at a
   moment between start and end, and up to two more times after it.
2. At a visit a random half of the taste's rows are candidates. The variant orders them by its own scores (items that it
   does not know have its median score for that user) and shows the best `SHOWN`.
3. The visitor looks at one of those: the first, second or third with probability 0.6, 0.25 and 0.15.
4. An event that is measured happens with probability 0.8 if that item is liked and 0.05 if not; where a Mean counts it,
   its value is 1. An event that a Ratio divides by happens at every visit and at once, even if it is also measured for
   itself.

A variant's advantage comes from what it shows and from nothing else. Every draw depends on seed, person and visit only:
not on the variant, the weights, the experiment, the number of others, or what else is measured. So the same person is
the same under other weights, and two variants that show the same get the same reactions.

Latencies are drawn too, and are the same for all variants. Nothing fails, and nobody falls back on another variant. In
a Mirror everybody sees control's list, and each visit is copied to every other variant.

What such an experiment cannot tell: persons who share a test user are no independent witnesses of taste, so intervals
hold for these test users and not for others; and every event is a sign of liking, so one of which less is better gets
more frequent as recommendations get better.
"""
