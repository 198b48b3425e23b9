#!/bin/sh
# in_memory.sh COMMAND [ARGUMENT...]: run it with its temporary files in memory.
#
# dpkg waits for the disk after each of the thousands of files that a Debian has, and who makes one
# to pack it into an archive needs none of that. The mount is the command's alone, and goes with it,
# as does what an interrupted mmdebstrap leaves mounted.

set -eu
available_kib=$(awk '/^MemAvailable:/ { print $2 }' /proc/meminfo)
[ "$available_kib" -ge 2097152 ] || exec "$@"

TMPDIR=$(mktemp -d)
export TMPDIR
trap 'rmdir "$TMPDIR"' EXIT
trap 'exit 143' TERM INT HUP
unshare --mount --propagation private sh -c '
    mount -t tmpfs -o mode=1777 tmpfs "$TMPDIR"
    exec "$@"' sh "$@"
