# SPDX-License-Identifier: Apache-2.0
"""Filters decide which hits count. Each is a file; `base` says what a filter is.

A filter imports `programs` and what is below it, never an action or an attachment.
"""
