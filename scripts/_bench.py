"""Race batchprobe against bcc's attach_kprobe/detach_kprobe: same functions, same run, same kernel.

Runs as root on the kernel that is measured (see scripts/bench). Prints one JSON object a line on
stdout, and a table on stderr.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from bcc import BPF

from batchprobe import Session, syscalls
from batchprobe.kernel.symbols import FunctionTable
from batchprobe.kernel.tracefs import Tracefs

BCC_PROGRAM = """
BPF_ARRAY(counts, u64, 1);
int hit(struct pt_regs *ctx) { counts.increment(0); return 0; }
"""
# Functions that a tracer really is pointed at, before anything else there is.
PREFERRED = ("tcp_", "vfs_", "ext4_", "ip_", "inet_", "sk_", "skb_", "blk_", "bio_")


def functions(count: int) -> list[str]:
    """Names of that many functions that every tool can attach to."""
    table = FunctionTable.from_kernel(Tracefs.find().root)
    seen: dict[str, int] = {}
    everything = table.matching(lambda _name: True, modules={""})
    for function in everything:
        seen[function.name] = seen.get(function.name, 0) + 1
    good = [
        function.name
        for function in everything
        if seen[function.name] == 1
        and "." not in function.name
        and table.is_traceable(function)
        and not table.is_blacklisted(function.address)
        and not table.is_init(function.address)
    ]
    good.sort(key=lambda name: not name.startswith(PREFERRED))
    return good[:count]


def race_bcc(bpf: BPF, names: list[str]) -> dict[str, float]:
    """Attach and detach one by one, as bcc's tools do."""
    began = time.perf_counter()
    attached = []
    for name in names:
        try:
            bpf.attach_kprobe(event=name, fn_name="hit")
        except Exception as error:  # bcc raises this and no other
            print(f"bcc: {name}: {error}", file=sys.stderr)
        else:
            attached.append(name)
    middle = time.perf_counter()
    for name in attached:
        bpf.detach_kprobe(event=name)
    return {
        "attached": len(attached),
        "attach": middle - began,
        "detach": time.perf_counter() - middle,
    }


def race_batchprobe(names: list[str], abi: str) -> dict[str, float]:
    """One attach, one commit. `final` is from the request to the printable results."""
    with Session(abi=abi) as session:
        began = time.perf_counter()
        probes = session.attach(names)
        attach = time.perf_counter() - began
        places: dict[str, int] = {}
        for probe in probes:
            places[probe.placement] = places.get(probe.placement, 0) + 1
        began = time.perf_counter()
        final: list[float] = []
        report = session.detach_all(lambda: final.append(time.perf_counter() - began))
        detach = time.perf_counter() - began
    assert not report.left, report.left
    return {
        "attached": len(probes),
        "attach": attach,
        "detach": detach,
        "top": report.top_seconds,
        "final": final[0],
        "reclaim": report.reclaim_seconds,
        **{f"placed_{place}": count for place, count in places.items()},
    }


def medians(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.median(r.get(key, 0) for r in rounds) for key in rounds[0]}


def grace_period() -> float:
    """Seconds that an ordinary synchronize_rcu() takes here."""
    times = []
    for _ in range(9):
        began = time.perf_counter()
        syscalls.membarrier_global()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def say(kind: str, **content: object) -> None:
    record = {"type": kind, "kernel": os.uname().release, **content}
    print(json.dumps(record), flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("counts", nargs="*", type=int, default=[200])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--abi", action="append", default=[])
    parser.add_argument("--bcc-most", type=int, default=200, help="no more one by one than this")
    options = parser.parse_args()
    with Session() as warm:
        warm.attach(["vfs_read"])  # compiles, or finds what was compiled
    bpf = BPF(text=BCC_PROGRAM, cflags=["-w"])
    bpf.load_func("hit", BPF.KPROBE)
    say("machine", cpus=os.cpu_count(), grace_period=grace_period())
    for count in options.counts:
        names = functions(count)
        runners: dict[str, Callable[[], dict[str, float]]] = {}
        if count <= options.bcc_most:
            runners["bcc"] = partial(race_bcc, bpf, names)
        for abi in options.abi or ["auto"]:
            runners[abi] = partial(race_batchprobe, names, abi)
        results: dict[str, list[dict[str, float]]] = {name: [] for name in runners}
        for _ in range(options.rounds):
            for name, runner in runners.items():
                results[name].append(runner())
        for name, rounds in results.items():
            middle = medians(rounds)
            say("race", tool=name, functions=len(names), median=middle, rounds=rounds)
            line = f"{len(names):>6} {name:<6}"
            for key in ("attach", "detach", "final", "reclaim"):
                line += f" {key} {middle[key]:8.3f} s" if key in middle else ""
            if name != "bcc" and "bcc" in results:
                bcc = medians(results["bcc"])
                line += f"  detach {bcc['detach'] / middle['detach']:.0f} x faster than bcc"
                line += f", attach {bcc['attach'] / middle['attach']:.1f} x"
            print(line, file=sys.stderr)
    return 0


if __name__ == "__main__":
    if not Path("/sys/kernel/tracing/kprobe_events").exists():
        sys.exit("no kprobes here: use scripts/bench, which boots a kernel that has them")
    sys.exit(main())
