# SPDX-License-Identifier: Apache-2.0
"""What a tool is given to see: the same few things, the same number of times.

    python3 workload.py

Runs in a guest, as a process named btwork, with files named btfile.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

COMM = "btwork"
FILE = "btfile"
ROUNDS = 20


def main() -> None:
    """Do everything once."""
    Path("/proc/self/comm").write_text(COMM)
    folder = Path("/root")
    for _ in range(ROUNDS):
        _files(folder)
    for _ in range(3):
        _network()
        _processes()
    _mounts(folder)
    os.sync()


def _files(folder: Path) -> None:
    file, other = folder / FILE, folder / f"{FILE}2"
    fd = os.open(file, os.O_RDWR | os.O_CREAT)
    os.write(fd, b"x" * 8192)
    os.posix_fallocate(fd, 0, 1)
    os.posix_fadvise(fd, 0, 1, os.POSIX_FADV_NORMAL)
    os.fsync(fd)
    os.pread(fd, 4096, 0)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.pread(fd, 4096, 0)
    os.close(fd)
    file.stat()
    file.rename(other)
    other.unlink()
    with contextlib.suppress(FileNotFoundError):
        (folder / f"{FILE}-is-not-there").stat()
    os.getsid(0)


def _network() -> None:
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("127.0.0.1", 0))
        server.listen()

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.sendall(connection.recv(1000))

        thread = threading.Thread(target=serve)
        thread.start()
        with socket.create_connection(server.getsockname()) as client:
            client.sendall(b"y" * 1000)
            client.recv(1000)
        thread.join()


def _processes() -> None:
    subprocess.run(("/bin/true",), check=True)
    with subprocess.Popen(("/bin/sleep", "60")) as child:
        time.sleep(0.05)
        child.send_signal(signal.SIGTERM)
    time.sleep(0.01)


def _mounts(folder: Path) -> None:
    point = folder / "btmount"
    point.mkdir()
    subprocess.run(("mount", "-t", "tmpfs", "none", point), check=True)
    subprocess.run(("umount", point), check=True)
    point.rmdir()


if __name__ == "__main__":
    main()
