#!/bin/sh
# The one file of ours in the root image: finds the run's disk and hands over to what is on it, so
# that nothing else of ours is frozen into the cached image. Runs as PID 1 or as a systemd service.
[ -b /dev/nvme0n3 ] || mount -t devtmpfs devtmpfs /dev
mount -t ext4 /dev/nvme0n3 /ketch-vm
exec /bin/sh /ketch-vm/session.sh
