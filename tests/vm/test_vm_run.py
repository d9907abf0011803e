# SPDX-License-Identifier: Apache-2.0
"""scripts/vm with real guests: a command behaves as if it ran on this machine."""

import contextlib
import errno
import fcntl
import hashlib
import os
import pty
import random
import select
import signal
import struct
import subprocess
import tempfile
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[2]
VM = str(CHECKOUT / "scripts" / "vm")
# A boot takes 5 to 30 s under emulation, and longer on a busy machine.
PATIENCE = 240


@pytest.fixture(scope="module", autouse=True)
def _images() -> None:
    subprocess.run([VM, "--prepare"], check=True)


def descendants(pid: int) -> set[int]:
    """The processes that `pid` started, those that they started, and so on."""
    parents = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents[int(status.parent.name)] = int(fields[1])
    found: set[int] = set()
    while new := {child for child, parent in parents.items() if parent in found | {pid}} - found:
        found |= new
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError as error:
        assert error.errno in {errno.ENOENT, errno.ESRCH}
        return False


def gone(pids: set[int], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while any(map(alive, pids)):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


@contextmanager
def started(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start scripts/vm, and wait for the first line of its command, which is "ready"."""
    with subprocess.Popen(
        [VM, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout
        try:
            assert process.stdout.readline() == b"ready\n"
            yield process
        finally:
            process.kill()


def test_streams_directory_environment_and_status_are_passed_on(tmp_path: Path) -> None:
    data = random.Random(1).randbytes(3_000_000)
    program = """
import os, shutil, sys
open("made-by-guest", "w").write(os.getcwd() + " " + os.environ["BATCHPROBE_WORD"])
sys.stderr.write(open("funcs.txt").read() + os.uname().release)
sys.stderr.flush()
shutil.copyfileobj(sys.stdin.buffer, sys.stdout.buffer)
import batchprobe
sys.exit(23)
"""
    (tmp_path / "funcs.txt").write_text("vfs_read ")
    done = subprocess.run(
        [VM, "--", "python3", "-c", program],
        cwd=tmp_path,
        env={**os.environ, "BATCHPROBE_WORD": "a word"},
        input=data,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 23, done.stderr.decode()
    assert hashlib.sha256(done.stdout).digest() == hashlib.sha256(data).digest()
    words = done.stderr.decode().split(" ")
    assert words[0] == "vfs_read"
    assert words[1].startswith("6.1.")
    assert (tmp_path / "made-by-guest").read_text() == f"{tmp_path} a word"


def test_a_guest_has_what_tests_need() -> None:
    script = """
set -e
test -w /sys/kernel/tracing/kprobe_events
test -r /sys/kernel/btf/vmlinux
test -r "/boot/config-$(uname -r)"
test -d "/lib/modules/$(uname -r)/build/include"
grep -q '^tracefs /sys/kernel/tracing ' /proc/mounts
mount | grep -q 'cgroup2 on /sys/fs/cgroup'
modprobe dummy
ip link show lo | grep -q LOWER_UP
touch /tmp/scratch /root/scratch
test "$(setpriv --reuid nobody --regid nogroup --clear-groups id -un)" = nobody
test "$(su -s /bin/sh nobody -c 'id -un')" = nobody
test "$(setpriv --reuid nobody --clear-groups --no-new-privs head -c1 /etc/passwd)" = r
kill -USR1 $$
"""
    done = subprocess.run(
        [VM, "--", "sh", "-c", script],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 128 + signal.SIGUSR1, done.stderr.decode()


def test_only_the_output_is_a_terminal() -> None:
    master, slave = pty.openpty()
    program = "import os; print(*map(os.isatty, range(3))); print(input())"
    with subprocess.Popen(
        [VM, "--", "python3", "-c", program],
        stdin=subprocess.PIPE,
        stdout=slave,
        stderr=subprocess.DEVNULL,
    ) as process:
        os.close(slave)
        assert process.stdin
        process.stdin.write(b"a line")
        process.stdin.close()
        text = b""
        # EIO: no process has the other end open any more.
        with contextlib.suppress(OSError):
            while part := os.read(master, 4096):
                text += part
    os.close(master)
    assert (text, process.returncode) == (b"False True False\r\na line\r\n", 0)


def test_closed_streams_stay_closed_and_tmp_is_shared() -> None:
    with tempfile.NamedTemporaryFile(dir="/tmp") as file:
        script = f"cat; echo x; test -f {Path(file.name).name} && echo y >&2; exit 6"
        done = subprocess.run(
            ["sh", "-c", '"$@" <&- >&-', "-", VM, "--", "sh", "-c", script],
            cwd="/tmp",  # noqa: S108
            capture_output=True,
            timeout=PATIENCE,
            check=False,
        )
    assert (done.stdout, done.stderr, done.returncode) == (b"", b"y\n", 6)


def test_the_command_handles_its_signals() -> None:
    script = "trap 'echo interrupted; exit 42' INT; echo ready; while :; do sleep 0.1; done"
    with started("--", "sh", "-c", script) as process:
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=PATIENCE)
    assert (out, process.returncode) == (b"interrupted\n", 42)


def test_a_reader_that_leaves_ends_the_writer() -> None:
    script = "echo ready; yes; echo 'not ended by SIGPIPE' >&2"
    with started("--", "sh", "-c", script) as process:
        assert process.stdout
        assert process.stdout.readline() == b"y\n"
        children = descendants(process.pid)
        process.stdout.close()
        process.wait(PATIENCE)
        assert process.stderr
        # `yes` itself reports that its reader is gone.
        assert b"not ended by SIGPIPE" in process.stderr.read()
    assert process.returncode == 0
    assert gone(children, 5)


def test_a_panic_is_reported() -> None:
    with started("--", "sh", "-c", "echo ready; sleep 1; echo c >/proc/sysrq-trigger") as process:
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 125
    assert b"the guest's kernel panicked" in err
    assert b"sysrq triggered crash" in err


def test_a_kill_of_the_runner_leaves_no_machine() -> None:
    with started("--", "sh", "-c", "echo ready; sleep 1000") as process:
        children = descendants(process.pid)
        assert children
        process.kill()
        assert gone(children, 10)


def test_a_command_that_ignores_signals_is_ended() -> None:
    script = "trap '' INT TERM; echo ready; while :; do sleep 1; done"
    with started("--", "sh", "-c", script) as process:
        children = descendants(process.pid)
        for _ in range(3):
            process.send_signal(signal.SIGTERM)
            time.sleep(0.2)
        _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 124
    assert b"did not end after several signals" in err
    assert gone(children, 5)


def test_a_guest_that_does_not_come_up_is_reported() -> None:
    done = subprocess.run(
        [VM, "--boot-timeout", "0.5", "--", "true"], capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 122
    assert b"was not up after" in done.stderr


def test_a_command_that_does_not_exist_is_reported() -> None:
    done = subprocess.run(
        [VM, "--", "no-such-command"], capture_output=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 127
    assert b"no-such-command" in done.stderr


class Screen:
    """A terminal that runs a command."""

    def __init__(self, *command: str) -> None:
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            os.execv(command[0], command)  # noqa: S606
        self.text = b""

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def expect(self, text: bytes) -> None:
        deadline = time.monotonic() + PATIENCE
        while text not in self.text:
            assert select.select([self.master], [], [], deadline - time.monotonic())[0], self.text
            self.text += os.read(self.master, 4096)
        self.text = self.text.partition(text)[2]

    def send(self, text: bytes) -> None:
        os.write(self.master, text)

    def modes(self) -> list[object]:
        return termios.tcgetattr(self.master)

    def wait(self) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def test_a_terminal_is_passed_through() -> None:
    program = """
import os, signal, sys
def size(*_):
    print("size", *os.get_terminal_size(), flush=True)
signal.signal(signal.SIGWINCH, size)
signal.signal(signal.SIGINT, lambda *_: print("interrupted", flush=True))
print(os.ttyname(0), os.ttyname(1), os.ttyname(2))
size()
for line in iter(sys.stdin.readline, "end\\n"):
    print("line:" + line, end="", flush=True)
sys.exit(9)
"""
    # The outer shell keeps the terminal open, so that its modes can be read at the end.
    screen = Screen(
        *("/bin/sh", "-c", 'read x; "$@"; echo "status $?"; read x', "-"),
        *(VM, "--", "python3", "-c", program),
    )
    screen.resize(33, 101)
    before = screen.modes()
    screen.send(b"\n")
    screen.expect(b"/dev/pts/")
    screen.expect(b"size 101 33\r\n")
    assert screen.modes() != before
    screen.send(b"hello\r")
    screen.expect(b"line:hello\r\n")
    screen.resize(44, 55)
    screen.expect(b"size 55 44")
    screen.send(b"\x03")
    screen.expect(b"interrupted")
    screen.send(b"\rend\r")
    screen.expect(b"status 9\r\n")
    assert screen.modes() == before
    screen.send(b"\n")
    assert screen.wait() == 0
    os.close(screen.master)
