# SPDX-License-Identifier: Apache-2.0
"""The report page of an evaluation: one HTML file without any outside asset, readable on a phone, in light and dark.

facts    what the input artifacts say of data, groups, training and lineage (reads files)
figures  pictures as inline SVG (pure);  svg: how a figure becomes one
limits   the sentences on what the numbers cannot say (pure)
page     facts + report -> page.html.j2 -> report/index.html
"""
