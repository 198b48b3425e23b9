"""What a system call filter comes to, for people."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ketch.spec.runtime import Seccomp

# Calls that a reader of filters looks for first: what they do reaches beyond a container.
_NOTABLE = (
    "acct", "add_key", "bpf", "delete_module", "finit_module", "fsopen", "init_module",
    "io_uring_setup", "kexec_load", "keyctl", "mount", "move_mount", "open_by_handle_at",
    "perf_event_open", "pivot_root", "ptrace", "quotactl", "reboot", "setns", "settimeofday",
    "swapon", "umount2", "unshare", "userfaultfd",
)  # fmt: skip


def summary(profile: "Seccomp") -> "dict[str, Any]":
    """What a filter does with most calls, and which it refuses.

    Args:
        profile: ``linux.seccomp`` of a container.

    Returns:
        ``default``: ``allow`` or ``refuse``; ``refused``: the calls that it names so, where the
        rest is allowed, else those of a few well-known ones that it does not let through;
        ``allowed``: how many it does.
    """
    allowing = {"SCMP_ACT_ALLOW", "SCMP_ACT_LOG"}
    allowed: set[str] = set()
    refused: set[str] = set()
    for rule in profile.get("syscalls", ()):
        (allowed if rule["action"] in allowing else refused).update(rule["names"])
    if profile["defaultAction"] in allowing:
        return {"default": "allow", "refused": sorted(refused)}
    return {
        "default": "refuse",
        "allowed": len(allowed),
        "refused": [name for name in _NOTABLE if name not in allowed],
    }
