# SPDX-License-Identifier: Apache-2.0
"""Python helpers that know nothing of probes or kernels.

Every room may import them; they import nothing of the package.
"""
