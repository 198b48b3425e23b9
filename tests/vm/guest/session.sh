# One run in the guest: mount what a booted machine has, run the job, leave its status on the fourth
# disk, switch off. /ketch-vm is the run's disk: job, path, and the checkout in tree/.

export HOME=/root LANG=C.UTF-8 TERM=dumb PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

if [ $$ = 1 ]; then
    mount -t cgroup2 -o nosuid,nodev,noexec,nsdelegate cgroup2 /sys/fs/cgroup
    mount -t tmpfs -o nosuid,nodev,mode=755 tmpfs /run
    mkdir -p /dev/pts /dev/shm /dev/mqueue /run/lock
    mount -t devpts -o gid=5,mode=620,ptmxmode=666 devpts /dev/pts
    mount -t tmpfs -o nosuid,nodev tmpfs /dev/shm
    mount -t mqueue mqueue /dev/mqueue
    ln -sf /proc/self/fd /dev/fd
    ln -sf /proc/self/fd/0 /dev/stdin
    ln -sf /proc/self/fd/1 /dev/stdout
    ln -sf /proc/self/fd/2 /dev/stderr
    echo ketch-vm >/proc/sys/kernel/hostname
    ip link set lo up
fi

# The console (ttyS0) is the kernel's; what the job prints goes to the host by a port of its own.
stty raw -F /dev/ttyS1
exec </dev/null >/dev/ttyS1 2>&1

mount -t ext4 -o ro "$(disk 2)" /usr/lib/modules
checkout=$(cat /ketch-vm/path)
mkdir -p "$checkout"
mount --bind /ketch-vm/tree "$checkout"
cd "$checkout" || exit 1

read -r uptime _ </proc/uptime
echo "vm: Linux $(uname -r), $(nproc) CPUs, $(awk '/MemTotal/ {print int($2 / 1024)}' /proc/meminfo) MiB," \
    "PID 1 is $(cat /proc/1/comm), $uptime s after power-on"
echo "vm: cgroup v2 with $(cat /sys/fs/cgroup/cgroup.controllers)"

setsid -w /bin/sh /ketch-vm/job
status=$?
read -r uptime _ </proc/uptime
echo "vm: status $status, $uptime s after power-on"
echo $status | dd of="$(disk 4)" conv=fsync status=none
busybox poweroff -f
