# SPDX-License-Identifier: Apache-2.0
"""How results look: text, JSON lines, a live table, stacks, a timeline, progress. Each form is a
file.

Sinks get values by probe, and make labels of probes; nothing else does. They know no kernel.
Imports actions (for columns and JSON of a value) and what is below them.
"""
