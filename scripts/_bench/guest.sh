#!/bin/sh
# In the guest: install batchprobe on its own disk, compiled, as the other tools are; then measure.
set -eu

checkout=$(dirname "$(dirname "$(dirname "$(readlink -f "$0")")")")
own=/opt/bench
mkdir -p "$own"
cp -r "$checkout/scripts/_bench" "$own"
site=$(python3 -c 'import site; print(site.getsitepackages()[0])')
mkdir -p "$site"
cp -r "$checkout/batchprobe" "$site"
# Where a wheel has it.
cp -r "$checkout/bpf" "$site/batchprobe"
python3 -m compileall -q "$own" "$site/batchprobe"
# The checkout is the first folder there, and on a slow file system.
export PYTHONPATH="$own:${PYTHONPATH#*:}" XDG_CACHE_HOME=/root/.cache PYTHONUNBUFFERED=1
# What tools refuse by default is what is to be measured.
export BCC_PROBE_LIMIT=1000000 BPFTRACE_MAX_PROBES=1000000 BPFTRACE_MAP_KEYS_MAX=100000
cd /
exec python3 -m _bench.guest "$@"
