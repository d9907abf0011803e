#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# In the guest: install the wheel with pip, as a user does on Debian, in a venv that sees the
# distribution's bcc; then measure. $1 is the wheel.
set -eu

wheel=$1
shift
scripts=$(dirname "$(dirname "$(readlink -f "$0")")")
venv=/opt/batchprobe
own=/opt/bench
# Without a pip of its own: installing that takes half a minute under emulation.
python3 -m venv --without-pip --system-site-packages "$venv"
python3 -m pip --python "$venv/bin/python" --quiet --disable-pip-version-check \
    install --no-index --no-deps "$wheel"
# What batchprobe depends on: pip installed it when the user space was built.
ln -s /opt/site/* "$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
mkdir -p /usr/local/bin
ln -s "$venv/bin/batchprobe" /usr/local/bin/batchprobe
mkdir -p "$own"
cp -r "$scripts/_bench" "$own"
python3 -m compileall -q "$own"
# Not the checkout, which is on a slow file system.
export PYTHONPATH="$own" XDG_CACHE_HOME=/root/.cache PYTHONUNBUFFERED=1
# What tools refuse by default is what is to be measured.
export BCC_PROBE_LIMIT=1000000 BPFTRACE_MAX_PROBES=1000000 BPFTRACE_MAP_KEYS_MAX=100000
cd /
exec "$venv/bin/python" -m _bench.guest "$@"
