# SPDX-License-Identifier: Apache-2.0
"""What the stage `compare` is made of.

rows      the variants' scores side by side, without rows that one of them was trained on
paired    differences over users: bootstrap intervals and p-values, corrected for several variants
page      the report page
"""
