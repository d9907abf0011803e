"""The programs of bpf/ as bytecode, a file an architecture: see `batchprobe.programs`."""
