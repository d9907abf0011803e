# SPDX-License-Identifier: Apache-2.0
"""Kernel objects that carry probes: one file per probe ABI, and the choice between them.

`attacher` is the way in: it takes the entries of a list and returns attached probes. `base` says
what an attachment is, `calls` joins two of them for both ends of calls, `kprobe` says where a probe
may stand, `calibration` whether it counts correctly.
Imports actions and what is below them; knows neither the session nor any output.
"""
