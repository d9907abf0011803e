# SPDX-License-Identifier: Apache-2.0
"""System calls, file descriptors, processes and small files: the room that talks to the kernel.

One function per call, without policy. A failure is a KernelError or OSError with the errno that the
kernel returned. May import `arch` and `errors`, nothing else of the package.
"""
