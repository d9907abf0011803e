#!/bin/busybox sh
# SPDX-License-Identifier: Apache-2.0
# The guest's first steps, in the initramfs: find the disks, mount everything, become the agent.
# `shares` has an fstab line for each shared directory. Starting a program takes 50 ms under
# emulation, so one `mount -a` mounts many; most other commands are built into busybox's shell.
set -e

/bin/busybox mount -t proc proc /proc
cat >/fstab.early <<END
dev /dev devtmpfs defaults 0 0
sysfs /sys sysfs defaults 0 0
END
mount -a -T /fstab.early

while read -r module; do
    # Some modules are for other CPUs; a generic one replaces them.
    insmod "/modules/$module" || :
done </modules/order

for block in /sys/block/vd*; do
    serial=
    read -r serial <"$block/serial" || [ -n "$serial" ]
    case $serial in
        userspace) userspace=/dev/${block##*/} ;;
        kernel) kernel=/dev/${block##*/} ;;
    esac
done

cat >/fstab <<END
$userspace /new ext4 noatime,noinit_itable 0 0
$kernel /new/kernel ext4 noatime,noinit_itable 0 0
/new/kernel/lib/modules /new/usr/lib/modules none bind 0 0
/new/kernel/usr/src /new/usr/src none bind 0 0
/new/kernel/boot /new/boot none bind 0 0
proc /new/proc proc defaults 0 0
sysfs /new/sys sysfs defaults 0 0
dev /new/dev devtmpfs defaults 0 0
tmpfs /new/run tmpfs mode=755 0 0
tracefs /new/sys/kernel/tracing tracefs defaults 0 0
debugfs /new/sys/kernel/debug debugfs defaults 0 0
securityfs /new/sys/kernel/security securityfs defaults 0 0
bpf /new/sys/fs/bpf bpf defaults 0 0
cgroup2 /new/sys/fs/cgroup cgroup2 defaults 0 0
END
# `mount -a` skips what is already mounted.
grep -q ' /new/tmp ' /shares || echo 'tmpfs /new/tmp tmpfs mode=1777 0 0' >>/fstab
mount -a -T /fstab

while read -r _ place _; do
    # printf undoes fstab's octal escapes.
    mkdir -p "$(printf '%b' "$place")"
done </shares
mkdir -p /new/dev/pts /new/dev/shm
cat - /shares >/fstab.late <<END
devpts /new/dev/pts devpts gid=5,mode=620,ptmxmode=666 0 0
tmpfs /new/dev/shm tmpfs mode=1777 0 0
END
mount -a -T /fstab.late

cp -r /agent /new/run/
hostname vm
ip link set lo up
exec switch_root -c /dev/console /new /usr/bin/python3 -E -s -S -B /run/agent/agent.py
