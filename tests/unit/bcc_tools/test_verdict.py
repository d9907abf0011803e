# SPDX-License-Identifier: Apache-2.0
"""The pure parts of scripts/bcc-tools: the verdict on two runs of a tool, and the page.

Outputs are those of real runs on Linux 6.1 with bcc 0.26, shortened.
"""

from __future__ import annotations

import pytest
from _bcctools.compare import Run, Verdict, judge, probes
from _bcctools.page import Results, page
from _bcctools.tools import TOOLS

ARGDIST = (
    "[06:48:26]\np::vfs_fallocate(void *f, int mode, u64 offset):u64:offset\n"
    "\tCOUNT      EVENT\n\t20         offset = 0\n"
)
EXACT = r"\d+ +offset ="
BATCHED = "batchprobe: 1 probe, 1 kernel object, 1 barrier, removed in 0.091 s\n"
NOTHING = "batchprobe: nothing to batch\n"
BIOLATENCY = "     usecs     : count     distribution\n"
HISTOGRAM = BIOLATENCY + (
    "        64 -> 127        : {}        |**                                      |\n"
    "       128 -> 255        : {}       |*************************               |\n"
)
NO_FUNCTION = (
    "cannot attach kprobe, probe entry may not exist\n"
    "Traceback (most recent call last):\n"
    '  File "/usr/sbin/biosnoop-bpfcc", line 198, in <module>\n'
    '    b.attach_kprobe(event="blk_account_io_start", fn_name="trace_pid_start")\n'
    "Exception: Failed to attach BPF program b'trace_pid_start' to kprobe "
    "b'blk_account_io_start', it's not traceable (either non-existing, inlined, or marked as "
    '"notrace")\n'
)
COMPILING = (
    "Traceback (most recent call last):\n"
    '  File "/usr/sbin/tcptop-bpfcc", line 301, in <module>\n'
    "    b = BPF(text=bpf_text)\n"
    "    self.module = lib.bpf_module_create_c_from_string(text,\n"
    "KeyboardInterrupt\n"
)
POLLING = (
    "Traceback (most recent call last):\n"
    "    lib.perf_reader_poll(len(readers), readers, timeout)\n"
    "KeyboardInterrupt\n"
)
OPENSNOOP = "PID    COMM              FD ERR PATH\n"


def run(
    output: str = "", errors: str = "", status: int | None = 0, exit_seconds: float | None = None
) -> Run:
    return Run(status, output, errors, 12.8, exit_seconds)


def batched(output: str = "", errors: str = "", status: int | None = 0) -> Run:
    return run(output, errors + BATCHED, status, 0.23)


def test_a_record_is_read_as_it_was_written() -> None:
    done = run(ARGDIST, NO_FUNCTION, None, 1.5)
    assert Run.of(done.to_json()) == done


def test_the_number_of_probes_is_in_the_summary() -> None:
    many = "batchprobe: 367 probes, 1 kernel object, 1 barrier, removed in 0.0629 s\n"
    assert [probes(run(errors=text)) for text in (many, BATCHED, NOTHING, "")] == [367, 1, 0, 0]


def test_exact_lines_are_compared_with_their_numbers() -> None:
    # The time of day is no such line.
    later = ARGDIST.replace("06:48:26", "06:49:13")
    assert judge(run(ARGDIST), batched(later), EXACT) == (
        Verdict.EQUAL,
        "1 line, numbers included",
    )
    fewer = later.replace("20 ", "19 ")
    assert judge(run(ARGDIST), batched(fewer), EXACT) == (
        Verdict.DIFFERS,
        "'20 offset = 0' without us, '19 offset = 0' with us",
    )
    assert judge(run(), batched(), EXACT)[0] is Verdict.WORKS


def test_other_lines_are_compared_without_their_numbers() -> None:
    line = "{}    btwork             3   0 /root/btfile\n"
    first, second = (OPENSNOOP + line.format(pid) for pid in (511, 620))
    assert judge(run(first), batched(second))[0] is Verdict.EQUAL
    assert judge(run(HISTOGRAM.format(2, 25)), batched(HISTOGRAM.format(22, 5))) == (
        Verdict.WORKS,
        "3 kinds of lines in common",
    )


def test_a_batched_tool_that_saw_nothing_differs() -> None:
    line = OPENSNOOP + "511    btwork             3   0 /root/btfile\n"
    other = OPENSNOOP + "71     agent              3   0 /etc/passwd\n"
    for seen in (OPENSNOOP, other):
        assert judge(run(line), batched(seen))[0] is Verdict.DIFFERS
    assert judge(run(HISTOGRAM.format(2, 25)), batched(BIOLATENCY))[0] is Verdict.DIFFERS
    # Nothing happened that it would show.
    assert judge(run(OPENSNOOP), batched(OPENSNOOP))[0] is Verdict.WORKS


@pytest.mark.parametrize(
    ("plain", "with_us", "verdict", "why"),
    [
        (run(errors=NO_FUNCTION, status=1), batched(errors=NO_FUNCTION, status=1), "BROKEN", ""),
        (run(errors=NO_FUNCTION, status=1), batched(), "BROKEN", "(batched, it works)"),
        (
            run(errors=NO_FUNCTION, status=1),
            batched(errors="Traceback\nKeyError: 7\n", status=1),
            "BROKEN",
            "(batched: KeyError: 7)",
        ),
        (run(), batched(errors=NO_FUNCTION, status=1), "DIFFERS", "Failed to attach"),
        (run(), batched(status=None), "DIFFERS", "does not end"),
        # A crash says nothing.
        (run(), batched(status=-11), "DIFFERS", "status -11"),
        (run(status=0), batched(status=130), "DIFFERS", "status 0 without us, 130 with us"),
    ],
)
def test_failures(plain: Run, with_us: Run, verdict: str, why: str) -> None:
    found, said = judge(plain, with_us)
    assert found is Verdict[verdict]
    assert why in said


def test_what_ctrl_c_leaves_is_no_failure_unless_the_tool_never_ran() -> None:
    assert not run(errors=POLLING, status=-2).failure
    assert "compiled" in run(errors=COMPILING, status=-2).failure
    assert judge(run(errors=POLLING, status=-2), batched(errors=POLLING, status=-2))[0] is (
        Verdict.WORKS
    )


def test_nothing_to_batch() -> None:
    assert judge(run(), run(errors=NOTHING)) == (Verdict.NOTHING, "")
    left = NOTHING.rstrip() + "; 2 kprobes left to bcc: maxactive\n"
    assert judge(run(), run(errors=left)) == (
        Verdict.NOTHING,
        "2 kprobes left to bcc: maxactive",
    )


def test_the_page() -> None:
    def record(plain: Run, with_us: Run) -> dict[str, object]:
        return {"arguments": [], "plain": plain.to_json(), "batched": with_us.to_json()}

    results = Results("debian-13/bookworm", {"kernel": "6.12", "bcc": "0.26.0"})
    results.records = {
        "biosnoop": record(run(errors=NO_FUNCTION, status=1), batched(status=1)),
        "vfscount": record(run(exit_seconds=7.4), batched()),
    }
    text = page([results])
    assert "## debian-13, with bookworm's user space: Linux 6.12, bcc 0.26.0" in text
    assert (
        "0 works, equal, 1 works, 0 nothing to batch, 1 broken without us too, 0 differs." in text
    )
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert rows[0].startswith("| `biosnoop` | broken without us too | Exception: Failed to attach")
    assert rows[1] == "| `vfscount` | works | no line to compare | 1 | 7.40 | 0.23 |"


def test_each_tool_is_there_once() -> None:
    names = [tool.name for tool in TOOLS]
    assert names == sorted(set(names))
