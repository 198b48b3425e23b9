"""The seccomp profile of a sandbox, for programs that nobody has read: Docker's, less what follows.

Each call that is taken away has had holes that led out of containers, or looks at other processes;
what a program of common use falls back from is said beside it. It asks for them in vain with
ENOSYS, as on a kernel that lacks them, so that libraries take their other way.
"""

from ketch.spec.seccomp_default import default_profile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_ENOSYS = 38

# Looking into other processes, or changing them: debuggers alone want that.
_DEBUGGING = """
    kcmp pidfd_getfd process_madvise process_mrelease process_vm_readv process_vm_writev ptrace
"""
# Moving pages between pipes and files: CVE-2022-0847 (Dirty Pipe). Copying falls back to reading.
_SPLICING = "splice tee vmsplice"
# The kernel's own queue of I/O, as io_uring, which Docker refuses; databases fall back to threads.
_QUEUED_IO = """
    io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit
"""
# What the host's mounts are, and files by handle instead of by path.
_MOUNTS = "listmount name_to_handle_at statmount"
# The page cache as a side channel (CVE-2019-5489), memory that nobody can account for, and what
# emulators of old programs call.
_PAGES = "cachestat memfd_secret mincore modify_ldt personality remap_file_pages"
# Queues of messages: CVE-2017-11176, and the spray of CVE-2021-22555.
_MESSAGES = """
    mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend
    mq_timedsend_time64 mq_unlink msgctl msgget msgrcv msgsnd
"""
# Watching files for others, and being served before others.
_PRECEDENCE = "fanotify_mark ioprio_set sched_setattr sched_setscheduler"
_REFUSED = frozenset(
    " ".join((_DEBUGGING, _SPLICING, _QUEUED_IO, _MOUNTS, _PAGES, _MESSAGES, _PRECEDENCE)).split()
)
# AF_UNIX, AF_INET, AF_INET6, and AF_NETLINK, by which C libraries learn the addresses of links.
_FAMILIES = (1, 2, 10, 16)


def sandbox_profile() -> "dict[str, Any]":
    """The profile in Docker's format, as ``default_profile``'s."""
    profile = default_profile()
    kept: list[dict[str, Any]] = [
        {"names": sorted(_REFUSED), "action": "SCMP_ACT_ERRNO", "errnoRet": _ENOSYS}
    ]
    for rule in profile["syscalls"]:
        names = [name for name in rule["names"] if name not in _REFUSED and name != "socket"]
        if names:
            kept.append({**rule, "names": names})
    kept += [
        {
            "names": ["socket"],
            "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "value": family, "op": "SCMP_CMP_EQ"}],
        }
        for family in _FAMILIES
    ]
    return {**profile, "syscalls": kept}
