# SPDX-License-Identifier: Apache-2.0
"""A refusal becomes what users can act on."""

from __future__ import annotations

import errno
from collections import Counter

import pytest
from entries import parse
from recorded import SYSCALL_PREFIXES, table

from batchprobe import Session
from batchprobe.attach.base import Refusal
from batchprobe.attach.select import _program_refused, _skip, _verdicts
from batchprobe.errors import ExitStatus, KernelError, VerifierError, verifier_reason
from batchprobe.functions.resolve import resolve
from batchprobe.functions.targets import Reason
from batchprobe.probe import Probe

TABLE = table("debian-12")
NO_JIT = (
    "program requires BPF JIT compiler but it is not available\n"
    "processed 0 insns (limit 1000000) max_states_per_insn 0 total_states 0\n"
)


def probes(entry: str) -> list[Probe]:
    found = resolve([parse(entry)], TABLE, syscall_prefixes=SYSCALL_PREFIXES)
    return [Probe(target) for target in found.targets]


@pytest.mark.parametrize(
    ("entry", "names"),
    [("vfs_read", False), ("vfs_read+1", False), ("syscall:openat", False), ("vfs_rea*", True)],
)
def test_a_skip_names_the_function_of_a_pattern(entry: str, names: bool) -> None:
    for probe in probes(entry):
        skip = _skip(Refusal(probe, errno.EINVAL, "EINVAL"), TABLE)
        assert (skip.entry, skip.reason) == (entry, Reason.REFUSED)
        assert skip.function == (probe.label if names else "")


def test_a_namesake_is_named_with_its_address() -> None:
    names = Counter(f.name for f in TABLE.matching(lambda _: True) if not f.module)
    ((name, times),) = names.most_common(1)
    assert times > 1
    for probe in probes(name):
        skip = _skip(Refusal(probe, errno.EADDRNOTAVAIL, "EADDRNOTAVAIL"), TABLE)
        assert skip.function.endswith(f"@{probe.address:#x}")
        assert f"write {probe.address:#x}" in skip.detail


def refused(entry: str, log: str) -> list[Refusal]:
    verdict = VerifierError("bpf(BPF_PROG_LOAD, by_ip)", errno.EINVAL, log)
    return [Refusal(probe, verdict.errno, str(verdict), verdict) for probe in probes(entry)]


def test_a_program_that_needs_the_compiler_is_one_error_with_its_remedy() -> None:
    verdict = _verdicts(refused("vfs_*", NO_JIT))[0]
    error = _program_refused(verdict, is_ours=True)
    assert error.exit_status == ExitStatus.UNSUPPORTED
    assert str(error) == (
        "the kernel refuses the program: program requires BPF JIT compiler but it is not available "
        "(sysctl -w net.core.bpf_jit_enable=1)"
    )


def test_a_program_of_the_caller_is_no_fault_of_the_machine() -> None:
    (verdict,) = _verdicts(refused("vfs_read", "0: (85) call x\nunknown func x\nprocessed 1 insns"))
    error = _program_refused(verdict, is_ours=False)
    assert error.exit_status == ExitStatus.NOTHING_ATTACHED
    assert str(error) == "the kernel refuses the program: unknown func x"


def test_a_program_that_is_refused_without_a_log_has_its_errno() -> None:
    (verdict,) = _verdicts(refused("vfs_read", ""))
    assert str(_program_refused(verdict, is_ours=True)).endswith("Invalid argument (EINVAL)")


def test_other_refusals_are_told_one_by_one() -> None:
    some = refused("vfs_*", NO_JIT)
    assert _verdicts([*some, Refusal(some[0].probe, errno.ENOENT, "")]) == []
    assert _verdicts([]) == []
    alone = Refusal(some[0].probe, 0, "", KernelError("perf_event_open", errno.EMFILE))
    assert _verdicts([alone]) == []
    # Where only the programs of one kind are refused, each skip has the reason.
    assert "requires BPF JIT compiler" in _skip(some[0], TABLE).detail


def test_the_reason_of_a_log_is_its_last_line_that_is_no_statistics() -> None:
    log = "0: R1=ctx\nR0 invalid mem access 'scalar'\nverification time 9 usec\nstack depth 0\n"
    assert verifier_reason(f"{log}processed 3 insns (limit 1000000)\n\n") == (
        "R0 invalid mem access 'scalar'"
    )
    assert verifier_reason("") == ""


def test_a_link_cannot_stand_after_the_patch_site() -> None:
    with pytest.raises(ValueError, match="a kprobe_multi link stand at a function's entry"):
        Session(abi="multi", placement="after")
