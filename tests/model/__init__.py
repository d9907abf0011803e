"""What detach and commit mean, as a model, and a state machine that holds the real thing to it."""

import pytest

# So that a failed assert tells what was there.
pytest.register_assert_rewrite("model.machine")
