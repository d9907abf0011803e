# SPDX-License-Identifier: Apache-2.0
"""Run a command on a distribution's stock kernel in a virtual machine: the parts of scripts/vm."""
