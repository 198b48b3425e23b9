#!/bin/sh
# The one file of ours in the root image: finds the run's disk and hands over to what is on it, so
# that nothing else of ours is frozen into the cached image. Runs as PID 1 or as a systemd service.
if [ $$ = 1 ]; then
    mount -t devtmpfs devtmpfs /dev
    mount -t proc -o nosuid,nodev,noexec proc /proc
    mount -t sysfs -o nosuid,nodev,noexec sysfs /sys
fi

# By namespace identifier: from Linux 6.12 on, names are given in the order of discovery.
disk() {
    grep -lx "$1" /sys/block/nvme0n*/nsid | sed 's,/sys/block/\(.*\)/nsid,/dev/\1,'
}

mount -t ext4 "$(disk 3)" /ketch-vm
. /ketch-vm/session.sh
