#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Begin with many functions, and keep only those that are hit most.

    narrow_down.py 'tcp_*' 'ip_*' --rounds 5

Each round lasts a second and ends with one commit that removes the quieter half of the probes. The
others miss no hit meanwhile, and the overhead falls with every round.
"""

import argparse
import sys
import time

from batchprobe import BatchprobeError, Session


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("entries", nargs="+", metavar="ENTRY")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with Session() as session:
        probes = session.attach(options.entries)
        before = dict.fromkeys(probes, 0)
        for number in range(options.rounds):
            time.sleep(1)
            now = session.counts()
            rates = {probe: now[probe] - before[probe] for probe in session.attached}
            busiest = sorted(rates, key=lambda probe: -rates[probe])
            keep = [probe for probe in busiest[: max(1, len(busiest) // 2)] if rates[probe]]
            if not keep:
                print("nothing is called any more", file=sys.stderr)
                break
            with session.batch():
                session.detach(set(busiest) - set(keep))
            before = now
            print(f"round {number + 1}: {len(keep)} of {len(busiest)} stay", file=sys.stderr)
        for probe in sorted(probes, key=lambda probe: -probe.count)[:20]:
            print(f"{probe.count:>10}  {probe.label}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BatchprobeError as error:
        sys.exit(f"{sys.argv[0]}: {error}")
