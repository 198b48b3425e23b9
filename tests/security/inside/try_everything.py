"""Try what a container's root must not be able to; print each outcome, ``done`` or the error.

Nothing is changed where it works: kernel files are opened for writing and closed again, and system
calls are given arguments that are refused once the right to make them has been checked.
"""

import ctypes
import errno
import glob
import json
import os
import socket
import stat

libc = ctypes.CDLL(None, use_errno=True)
AT_FDCWD = -100
CLONE_NEWNS, CLONE_NEWUSER = 0x20000, 0x10000000
# x86_64 and aarch64 agree from pidfd_send_signal (424) on; older ones are looked up by machine.
NUMBERS = {
    "x86_64": {
        "setns": 308, "bpf": 321, "add_key": 248, "keyctl": 250, "perf_event_open": 298,
        "open_by_handle_at": 304, "init_module": 175, "kexec_load": 246, "userfaultfd": 323,
        "acct": 163, "swapon": 167, "syslog": 103, "pivot_root": 155, "quotactl": 179,
    },
    "aarch64": {
        "setns": 268, "bpf": 280, "add_key": 217, "keyctl": 219, "perf_event_open": 241,
        "open_by_handle_at": 265, "init_module": 105, "kexec_load": 104, "userfaultfd": 282,
        "acct": 89, "swapon": 224, "syslog": 116, "pivot_root": 41, "quotactl": 60,
    },
}[os.uname().machine] | {"fsopen": 430, "open_tree": 428, "io_uring_setup": 425}  # fmt: skip
found: dict[str, str] = {}


def record(name: str, result: int) -> None:
    """Note what a system call returned."""
    found[name] = "done" if result >= 0 else errno.errorcode[ctypes.get_errno()]


def call(name: str, *arguments: object) -> None:
    """Make a system call by number."""
    record(name, libc.syscall(NUMBERS[name], *arguments))


def attempt(name: str, path: str, flags: int) -> None:
    """Open a path and close it again."""
    try:
        os.close(os.open(path, flags | os.O_NONBLOCK | os.O_CLOEXEC))
        found[name] = "done"
    except OSError as error:
        found[name] = errno.errorcode[error.errno or 0]


record("mount", libc.mount(b"tmpfs", b"/tmp", b"tmpfs", 0, None))
record("remount /proc/sys", libc.mount(None, b"/proc/sys", None, 0x1020, None))
record("unmount a mask", libc.umount2(b"/proc/keys", 2))
call("fsopen", b"tmpfs", 0)
call("open_tree", AT_FDCWD, b"/", 1)
call("pivot_root", b".", b".")
for name, flag in (("unshare mount", CLONE_NEWNS), ("unshare user", CLONE_NEWUSER)):
    child = os.fork()
    if child == 0:
        os._exit(ctypes.get_errno() if libc.unshare(flag) else 0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    found[name] = errno.errorcode[status] if status else "done"
namespace = os.open("/proc/self/ns/net", os.O_RDONLY)
call("setns", namespace, 0)
# CVE-2014-3519, "shocker": the host's root is inode 2 whatever one's own root is.
handle = (ctypes.c_uint * 4)(8, 1, 2, 0)
root = os.open("/etc/hosts", os.O_RDONLY)
call("open_by_handle_at", root, handle, os.O_RDONLY)
call("bpf", 5, ctypes.create_string_buffer(128), 128)
call("add_key", b"user", b"ketch-test", b"x", 1, -2)
call("keyctl", 0, -3, 0)
call("perf_event_open", None, 0, -1, -1, 0)
call("userfaultfd", 0)
call("io_uring_setup", 1, ctypes.create_string_buffer(120))
call("init_module", None, 0, b"")
call("kexec_load", 0, 0, None, 0)
call("acct", b"/nowhere")
call("swapon", b"/nowhere", 0)
call("quotactl", 0, None, 0, None)
call("syslog", 3, ctypes.create_string_buffer(16), 16)
for family, name in ((40, "AF_VSOCK"), (38, "AF_ALG")):
    try:
        socket.socket(family, socket.SOCK_STREAM if family == 40 else socket.SOCK_SEQPACKET).close()
        found[name] = "done"
    except OSError as error:
        found[name] = errno.errorcode[error.errno or 0]

for path in (
    "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sys/vm/drop_caches",
    "/proc/sysrq-trigger", "/sys/kernel/uevent_helper", "/sys/kernel/mm/ksm/run",
    "/sys/power/state", "/sys/kernel/profiling",
    *glob.glob("/sys/fs/cgroup/*/release_agent"), *glob.glob("/sys/fs/cgroup/*/cgroup.procs"),
    "/sys/fs/cgroup/devices/devices.allow", "/sys/fs/cgroup/cgroup.procs",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/pids/pids.max",
):  # fmt: skip
    if os.path.exists(path):
        attempt(path, path, os.O_WRONLY)
groups = "/sys/fs/cgroup/memory" if os.path.exists("/sys/fs/cgroup/memory") else "/sys/fs/cgroup"
try:
    os.mkdir(f"{groups}/ketch-test-made")
    os.rmdir(f"{groups}/ketch-test-made")
    found["make a cgroup"] = "done"
except OSError as error:
    found["make a cgroup"] = errno.errorcode[error.errno or 0]

for name, number in (("mem", (1, 1)), ("kmsg", (1, 11)), ("loop-control", (10, 237)),
                     ("fuse", (10, 229)), ("tun", (10, 200)), ("watchdog", (10, 130))):  # fmt: skip
    try:
        os.mknod(f"/tmp/{name}", stat.S_IFCHR | 0o600, os.makedev(*number))
    except OSError as error:
        found[f"device {name}"] = errno.errorcode[error.errno or 0]
        continue
    # A watchdog that has been opened restarts the machine: never open that one.
    if name != "watchdog":
        attempt(f"device {name}", f"/tmp/{name}", os.O_RDONLY)
try:
    os.mknod("/tmp/disk", stat.S_IFBLK | 0o600, os.makedev(7, 0))
    attempt("device disk", "/tmp/disk", os.O_RDONLY)
except OSError as error:
    found["device disk"] = errno.errorcode[error.errno or 0]
print(json.dumps(found))
