# SPDX-License-Identifier: Apache-2.0
"""scripts/test: which tests run where, several kernels at once, and the verdict."""
