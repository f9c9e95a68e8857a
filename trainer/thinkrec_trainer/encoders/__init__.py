# SPDX-License-Identifier: Apache-2.0
"""Collaborative-filtering encoders: train rows in, one vector and one bias per user and item out.

    mf, lightgcn, sasrec   one encoder each: one class that satisfies `fit.Encoder`
    fit                    the loop, early stopping and checkpoints, shared by all
    data, scores           rows as tensors; scores of (user, item) pairs

Every encoder learns "liked or not" pointwise, because its scores are the baseline that the language model has to beat
on the same labels. Nothing here reads files or knows the stage protocol.
"""
