# SPDX-License-Identifier: Apache-2.0
"""Collaborative-filtering encoders: train rows in, one vector and one bias per user and item out.

Each encoder is one module with one class that satisfies `fit.Encoder`; the loop, early stopping and checkpoints are
shared (fit.py). Every encoder learns "liked or not" pointwise, because its scores are the baseline that the language
model has to beat on the same labels. Nothing here reads files or knows the stage protocol.
"""
