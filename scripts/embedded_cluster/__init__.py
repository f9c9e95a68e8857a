# SPDX-License-Identifier: Apache-2.0
"""A real Kubernetes on this machine, without a container engine: for tests and for trying thinkrec."""
