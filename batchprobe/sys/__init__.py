"""System calls, file descriptors, processes and small files: the room that talks to the kernel.

One function per call; each raises KernelError or OSError with the kernel's errno. What a call is
used for is decided elsewhere. May import `arch` and `errors`, nothing else of the package.
"""
