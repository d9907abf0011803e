# SPDX-License-Identifier: Apache-2.0
"""A model of attach, detach and commit, and a state machine that compares a session with it."""

import pytest

# A failed assert then shows its operands.
pytest.register_assert_rewrite("model.machine")
