# What a container is, seen from inside. Run by scripts/first_run.sh as the container's program.
row() { printf '  %-12s %s\n' "$1" "$2"; }

set -- /proc/[0-9]*
row 'process' "this shell is PID $$ and sees $# process: itself"
row 'host name' "$(hostname)"
status() { awk -v name="$1:" '$1 == name { print $2 }' /proc/self/status; }
row 'user' "$(id -un), with capabilities $(status CapEff), seccomp mode $(status Seccomp)"
row 'files' "$(awk '$2 == "/" { print $1 }' /proc/mounts) from the image, with $(ls /bin | wc -l) programs in /bin"
row 'network' "$(ip -4 -o address show eth0 | awk '{ print $4 }') on eth0, gateway $(ip route | awk '/^default/ { print $3 }')"
for file in /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max; do
    [ -e "$file" ] && row 'memory' "at most $(($(cat "$file") / 1048576)) MiB"
done
for file in /sys/fs/cgroup/pids/pids.max /sys/fs/cgroup/pids.max; do
    [ -e "$file" ] && row 'processes' "at most $(cat "$file")"
done
row 'read-only' "$(grep -c ' ro,' /proc/mounts) of $(wc -l < /proc/mounts) mounts, among them /sys and /proc/sys"
