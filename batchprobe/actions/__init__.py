# SPDX-License-Identifier: Apache-2.0
"""Actions: what happens on a hit, and how its result is read. Each is a file.

`base` says what an action is, `loader` where its programs come from. An action imports filters,
probes, programs and what is below them, never an attachment or an output.
"""

from batchprobe.actions.base import Action
from batchprobe.actions.count import Count

__all__ = ["Action", "Count"]
