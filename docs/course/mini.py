#!/usr/bin/python3
"""A container of one's own: mini.py ROOTFS COMMAND [ARG...] (root; Python's library alone)."""

import ctypes
import os
import socket
import subprocess
import sys

NEWNS, NEWCGROUP, NEWUTS, NEWIPC = 0x00020000, 0x02000000, 0x04000000, 0x08000000
NEWUSER, NEWPID, NEWNET = 0x10000000, 0x20000000, 0x40000000
NOSUID, NODEV, NOEXEC, BIND, REC, PRIVATE = 2, 4, 8, 1 << 12, 1 << 14, 1 << 18
DETACH = 2  # of umount2(2)
CAPBSET_DROP, SET_NO_NEW_PRIVS = 24, 38  # of prctl(2)
KEPT = {0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31}  # Docker's 14: chown, ..., setfcap
FIRST_ID, IDS = 100000, 65536  # what root of the container is outside, and how many ids there are
LIMITS = {"pids": {"pids.max": 64}, "memory": {"memory.limit_in_bytes": 64 << 20}}  # cgroup v1
LIMITS_V2 = {"": {"pids.max": 64, "memory.max": 64 << 20}}
ADDRESS, GATEWAY = "10.77.0.2", "10.77.0.1"

libc = ctypes.CDLL(None, use_errno=True)


def call(name, *arguments):
    """Make a system call by libc's function; raise OSError where that returns -1."""
    words = [os.fsencode(word) if isinstance(word, str) else word for word in arguments]
    if getattr(libc, name)(*words) < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}{arguments}: {os.strerror(number)}")


def write(path, text):
    """Write a file, as echo does."""
    with open(path, "w") as file:
        file.write(str(text))


def limited(pid):
    """Put a process into control groups of its own; return their directories."""
    unified = os.path.exists("/sys/fs/cgroup/cgroup.controllers")
    groups = []
    for controller, limits in (LIMITS_V2 if unified else LIMITS).items():
        group = os.path.join("/sys/fs/cgroup", controller, f"mini-{pid}")
        os.mkdir(group)
        groups.append(group)
        for file, value in limits.items():
            write(f"{group}/{file}", value)
        write(f"{group}/cgroup.procs", pid)
    return groups


def linked(pid):
    """Lay a cable: one end here, the other, eth0, in the process's network namespace."""
    here = f"mini{pid}"
    inside = f"nsenter --net=/proc/{pid}/ns/net ip"
    for line in (
        f"ip link add {here} type veth peer name eth0 netns {pid}",
        f"ip address add {GATEWAY}/24 dev {here}",
        f"ip link set {here} up",
        f"{inside} address add {ADDRESS}/24 dev eth0",
        f"{inside} link set eth0 up",
        f"{inside} link set lo up",
        f"{inside} route add default via {GATEWAY}",
    ):
        subprocess.run(line.split(), check=True)


def new_root(rootfs):
    """Make the container's root of two layers, and leave the old one."""
    call("mount", "none", "/", None, REC | PRIVATE, None)  # nothing of it shows outside
    call("mount", "tmpfs", "/mnt", "tmpfs", NODEV, None)  # what is written is kept in memory
    for name in ("upper", "work", "root"):
        os.mkdir(f"/mnt/{name}")
    layers = f"lowerdir={rootfs},upperdir=/mnt/upper,workdir=/mnt/work,userxattr"
    call("mount", "overlay", "/mnt/root", "overlay", NODEV, layers)
    for name in ("proc", "dev", "old"):
        os.makedirs(f"/mnt/root/{name}", exist_ok=True)
    call("mount", "proc", "/mnt/root/proc", "proc", NOSUID | NODEV | NOEXEC, None)
    call("mount", "tmpfs", "/mnt/root/dev", "tmpfs", NOSUID, "mode=755")
    for name in ("null", "zero", "full", "random", "urandom", "tty"):
        write(f"/mnt/root/dev/{name}", "")
        call("mount", f"/dev/{name}", f"/mnt/root/dev/{name}", None, BIND, None)
    call("pivot_root", "/mnt/root", "/mnt/root/old")
    os.chdir("/")
    call("umount2", "/old", DETACH)
    os.rmdir("/old")


def program(rootfs, command):
    """Become the container's program: PID 1, root of nothing but this."""
    socket.sethostname("mini")
    new_root(rootfs)
    for capability in range(int(open("/proc/sys/kernel/cap_last_cap").read()) + 1):
        if capability not in KEPT:
            call("prctl", CAPBSET_DROP, capability, 0, 0, 0)
    call("prctl", SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "TERM": "linux"}
    os.execvpe(command[0], command, environment)


def forked(function, *arguments):
    """Run a function in a child, which ends with it; return the child's pid."""
    pid = os.fork()
    if pid == 0:
        try:
            function(*arguments)
        except OSError as error:
            print(f"mini.py: {error}", file=sys.stderr)
        os._exit(127)
    return pid


def ended(pid):
    """Wait for a child's end; return its exit status as a shell has it."""
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return 128 - status if status < 0 else status


def met(end):
    """Tell the other side that one is so far, and wait until it is."""
    end.send(b".")
    if not end.recv(1):
        raise OSError("the other side has gone")


def container(here, there, rootfs, command):
    """Make namespaces once this process is limited, and a PID 1 once its ids are mapped."""
    here.close()
    met(there)
    call("unshare", NEWUSER | NEWNS | NEWPID | NEWNET | NEWIPC | NEWUTS | NEWCGROUP)
    met(there)
    met(there)
    os.setgid(0)
    os.setuid(0)
    os.setgroups([])
    os._exit(ended(forked(program, rootfs, command)))


def main(rootfs, *command):
    """Make a container and wait for its end; return its exit status."""
    here, there = socket.socketpair()
    pid = forked(container, here, there, os.path.abspath(rootfs), command)
    there.close()
    groups = limited(pid)
    try:
        met(here)
        met(here)
        for file in ("uid_map", "gid_map"):
            write(f"/proc/{pid}/{file}", f"0 {FIRST_ID} {IDS}")
        linked(pid)
        met(here)
    finally:
        here.close()
        status = ended(pid)
        for group in groups:
            os.rmdir(group)
    return status


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
