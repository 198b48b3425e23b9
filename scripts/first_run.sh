#!/bin/sh
# Make the busybox image where it is missing, then show a container from inside.
# usage: first_run.sh KETCH
set -eu
cd "$(dirname "$0")/.."
ketch=$1

if ! "$ketch" images | grep -q '^busybox '; then
    echo 'ketch: making the image busybox from this machine'\''s static busybox'
    "$(dirname "$ketch")/python" scripts/busybox_rootfs.py .cache/first-run.tar
    "$ketch" import .cache/first-run.tar busybox >/dev/null
    rm .cache/first-run.tar
fi
set -- run --rm --hostname first --memory 64m --pids-limit 32 \
    -v "$PWD/scripts/tour.sh:/tour.sh:ro" busybox sh /tour.sh
echo "\$ ketch $*"
"$ketch" "$@"
cat <<END

Next:  $ketch run -it --rm busybox       a shell in a new container
       $ketch run --help                 everything else
END
