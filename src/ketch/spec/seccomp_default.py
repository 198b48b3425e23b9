"""The seccomp profile of a container that names none: what Docker's allows, ours allows.

A profile lists what is allowed; all else fails with EPERM. The facts are those of Docker 28's
default profile, and a test compares them rule by rule. ``socketcall`` is refused, as by Docker from
its mending of CVE-2026-31431 on, until an AppArmor profile took that over, which ketch has none of.
"""

from collections.abc import Sequence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

_EPERM = 1
_ENOSYS = 38

_AF_ALG = 38
_AF_VSOCK = 40
_FAMILIES = 64  # Linux 6.18 knows of 46

_S390 = ["s390", "s390x"]

_INT = 0xFFFFFFFF  # what a 64-bit kernel takes of an argument that is an int

# Every CLONE_NEW* flag but CLONE_NEWTIME, which clone(2) cannot express.
_CLONE_NAMESPACES = 0x7E020000

# personality(2): LINUX and LINUX32, each with or without UNAME26, and the query for the one set.
_PERSONALITIES = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)

_FILES = """
    access chdir chmod chown chown32 close close_range copy_file_range creat dup dup2 dup3
    faccessat faccessat2 fadvise64 fadvise64_64 fallocate fchdir fchmod fchmodat fchmodat2 fchown
    fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock fremovexattr fsetxattr
    fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate ftruncate64 futimesat getcwd getdents
    getdents64 getxattr getxattrat ioctl lchown lchown32 lgetxattr link linkat listmount listxattr
    listxattrat llistxattr _llseek lremovexattr lseek lsetxattr lstat lstat64 mkdir mkdirat mknod
    mknodat name_to_handle_at newfstatat open openat openat2 pread64 preadv preadv2 pwrite64
    pwritev pwritev2 read readahead readlink readlinkat readv removexattr removexattrat rename
    renameat renameat2 rmdir sendfile sendfile64 setxattr setxattrat splice stat stat64 statfs
    statfs64 statmount statx symlink symlinkat sync sync_file_range syncfs tee truncate truncate64
    umask unlink unlinkat utime utimensat utimensat_time64 utimes vmsplice write writev
"""
_WAITING = """
    epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait
    epoll_wait_old eventfd eventfd2 fanotify_mark inotify_add_watch inotify_init inotify_init1
    inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup
    io_submit _newselect pipe pipe2 poll ppoll ppoll_time64 pselect6 pselect6_time64 select
"""
_MEMORY = """
    brk cachestat madvise map_shadow_stack memfd_create memfd_secret mincore mlock mlock2 mlockall
    mmap mmap2 mprotect mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free
    pkey_mprotect process_mrelease remap_file_pages
"""
_PROCESSES = """
    capget capset execve execveat exit exit_group fork getcpu getpgid getpgrp getpid getppid
    getpriority get_robust_list getrlimit getrusage getsid get_thread_area gettid ioprio_get
    ioprio_set landlock_add_rule landlock_create_ruleset landlock_restrict_self membarrier
    pidfd_open prctl prlimit64 riscv_hwprobe rseq sched_getaffinity sched_getattr sched_getparam
    sched_get_priority_max sched_get_priority_min sched_getscheduler sched_rr_get_interval
    sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler
    sched_yield seccomp setpgid setpriority setrlimit set_robust_list setsid set_thread_area
    set_tid_address sysinfo times ugetrlimit uname uretprobe vfork wait4 waitid waitpid
"""
_IDENTITIES = """
    getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getresgid getresgid32
    getresuid getresuid32 getuid getuid32 setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32
    setgroups setgroups32 setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid
    setreuid32 setuid setuid32
"""
_SIGNALS = """
    kill pause pidfd_send_signal restart_syscall rt_sigaction rt_sigpending rt_sigprocmask
    rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64
    rt_tgsigqueueinfo sigaltstack signalfd signalfd4 sigprocmask sigreturn tgkill tkill
"""
_SYNCHRONIZATION = """
    futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake ipc mq_getsetattr mq_notify
    mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 mq_unlink
    msgctl msgget msgrcv msgsnd semctl semget semop semtimedop semtimedop_time64 shmat shmctl shmdt
    shmget
"""
_SOCKETS = """
    accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom recvmmsg
    recvmmsg_time64 recvmsg send sendmmsg sendmsg sendto setsockopt shutdown socketpair
"""
_CLOCKS = """
    adjtimex alarm clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime
    clock_gettime64 clock_nanosleep clock_nanosleep_time64 getitimer getrandom gettimeofday
    nanosleep setitimer time timer_create timer_delete timer_getoverrun timer_gettime
    timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64
    timerfd_settime timerfd_settime64
"""

_BY_CAPABILITY = {
    "CAP_BPF": "bpf",
    "CAP_DAC_READ_SEARCH": "open_by_handle_at",
    "CAP_PERFMON": "perf_event_open",
    "CAP_SYSLOG": "syslog",
    "CAP_SYS_ADMIN": """
        bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie
        lsm_get_self_attr lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount
        open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog
        umount umount2 unshare
    """,
    "CAP_SYS_BOOT": "reboot",
    "CAP_SYS_CHROOT": "chroot",
    "CAP_SYS_MODULE": "delete_module finit_module init_module",
    "CAP_SYS_NICE": "get_mempolicy mbind set_mempolicy set_mempolicy_home_node",
    "CAP_SYS_PACCT": "acct",
    "CAP_SYS_PTRACE": """
        kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace
    """,
    "CAP_SYS_RAWIO": "ioperm iopl",
    "CAP_SYS_TIME": "clock_settime clock_settime64 settimeofday stime",
    "CAP_SYS_TTY_CONFIG": "vhangup",
}

_BY_ARCHITECTURE = {
    ("amd64", "x32"): "arch_prctl",
    ("amd64", "x32", "x86"): "modify_ldt",
    ("arm", "arm64"): """
        arm_fadvise64_64 arm_sync_file_range breakpoint cacheflush set_tls sync_file_range2
    """,
    ("ppc64le",): "swapcontext sync_file_range2",
    ("riscv64",): "riscv_flush_icache",
    tuple(_S390): "s390_pci_mmio_read s390_pci_mmio_write s390_runtime_instr",
}

# The ABIs that a kernel of one architecture runs beside its own.
_COMPANIONS = {
    "X86_64": ("X86", "X32"),
    "AARCH64": ("ARM",),
    "MIPS64": ("MIPS", "MIPS64N32"),
    "MIPS64N32": ("MIPS", "MIPS64"),
    "MIPSEL64": ("MIPSEL", "MIPSEL64N32"),
    "MIPSEL64N32": ("MIPSEL", "MIPSEL64"),
    "S390X": ("S390",),
    "RISCV64": (),
    "LOONGARCH64": (),
}


def default_profile() -> "dict[str, Any]":
    """The profile in Docker's format, for ``ketch.spec.seccomp.to_oci``."""
    without_admin = {"caps": ["CAP_SYS_ADMIN"]}
    always = " ".join((
        _FILES, _WAITING, _MEMORY, _PROCESSES, _IDENTITIES, _SIGNALS, _SYNCHRONIZATION, _SOCKETS,
        _CLOCKS,
    ))  # fmt: skip
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": _EPERM,
        "archMap": [
            {
                "architecture": f"SCMP_ARCH_{name}",
                "subArchitectures": [f"SCMP_ARCH_{companion}" for companion in companions],
            }
            for name, companions in _COMPANIONS.items()
        ],
        "syscalls": [
            # The 32-bit way to all of the calls for sockets: its arguments are behind a pointer,
            # so that no filter sees the address family. Said first, and with another error than
            # the default's, or else libseccomp lets it through wherever one of them is allowed.
            # The C libraries of s390 know no other way to a socket.
            {
                "names": ["socketcall"],
                "action": "SCMP_ACT_ERRNO",
                "errnoRet": _ENOSYS,
                "excludes": {"arches": _S390},
            },
            _allow("socketcall", includes={"arches": _S390}),
            _allow(always),
            # Before Linux 4.8 a tracer could dodge the tracee's filter.
            _allow("process_vm_readv process_vm_writev ptrace", includes={"minKernel": "4.8"}),
            # All address families but AF_ALG and AF_VSOCK, which reach beyond the container. By the
            # lower half of the argument, which is all that the kernel takes of it: a comparison of
            # the whole, as Docker's, lets 2**32 + AF_VSOCK through for a larger number.
            *(
                _allow("socket", [{**_argument(0, "MASKED_EQ", mask), "valueTwo": value}])
                for mask, value in _ranges_without({_AF_ALG, _AF_VSOCK}, 0, _FAMILIES)
            ),
            *(_allow("personality", [_argument(0, "EQ", value)]) for value in _PERSONALITIES),
            *(
                _allow(names, includes={"arches": list(architectures)})
                for architectures, names in _BY_ARCHITECTURE.items()
            ),
            *(
                _allow(names, includes={"caps": [capability]})
                for capability, names in _BY_CAPABILITY.items()
            ),
            # Without CAP_SYS_ADMIN no new namespaces; s390 has clone's first arguments swapped.
            _allow(
                "clone",
                [_argument(0, "MASKED_EQ", _CLONE_NAMESPACES)],
                excludes={**without_admin, "arches": _S390},
            ),
            _allow(
                "clone",
                [_argument(1, "MASKED_EQ", _CLONE_NAMESPACES)],
                includes={"arches": _S390},
                excludes=without_admin,
            ),
            # A filter cannot look into clone3's structure; ENOSYS makes libc fall back to clone.
            {
                "names": ["clone3"],
                "action": "SCMP_ACT_ERRNO",
                "errnoRet": _ENOSYS,
                "excludes": without_admin,
            },
        ],
    }


def _ranges_without(refused: set[int], first: int, size: int) -> "Iterator[tuple[int, int]]":
    """Masks of 32 bits, and what is left under each, that all numbers have but some.

    Args:
        refused: the numbers that are not to have any.
        first: the first number, a multiple of their count.
        size: how many numbers there are, a power of two.
    """
    if refused.isdisjoint(range(first, first + size)):
        yield _INT & ~(size - 1), first
    elif size > 1:
        for half in (first, first + size // 2):
            yield from _ranges_without(refused, half, size // 2)


def _allow(
    names: str, args: "Sequence[dict[str, Any]]" = (), **conditions: "dict[str, Any]"
) -> "dict[str, Any]":
    return {"names": names.split(), "action": "SCMP_ACT_ALLOW", "args": list(args), **conditions}


def _argument(index: int, operator: str, value: int) -> "dict[str, Any]":
    return {"index": index, "value": value, "op": f"SCMP_CMP_{operator}"}
