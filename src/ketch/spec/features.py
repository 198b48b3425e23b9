"""What this runtime can do, as callers ask for it: runtime-spec features.md, features-linux.md."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.spec.runtime import Features, NamespaceType

OCI_VERSION = "1.3.0"
"""The version of the runtime specification that is implemented."""

OCI_VERSION_MINIMUM = "1.0.0"

HOOKS = (
    "prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop",
)  # fmt: skip
NAMESPACES: "tuple[NamespaceType, ...]" = (
    "cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts",
)  # fmt: skip

_FLAGS = ("atime", "dev", "diratime", "exec", "relatime", "strictatime", "suid", "symfollow")
MOUNT_OPTIONS = tuple(sorted([
    *_FLAGS, *(f"no{name}" for name in _FLAGS), "ro", "rw",
    *(f"r{name}" for name in _FLAGS), *(f"rno{name}" for name in _FLAGS), "rro", "rrw",
    "private", "rprivate", "shared", "rshared", "slave", "rslave", "unbindable", "runbindable",
    "bind", "rbind", "remount", "defaults", "tmpcopyup", "idmap", "ridmap",
    "async", "sync", "dirsync", "lazytime", "nolazytime", "mand", "nomand",
    "acl", "noacl", "iversion", "noiversion", "loud", "silent",
]))  # fmt: skip
"""Options that mean something to the runtime; others go to the file system."""


def document(annotations: dict[str, str]) -> "Features":
    """The whole document.

    Args:
        annotations: versions of what the runtime uses.
    """
    # Others want the version alone.
    from ketch.spec import capabilities, seccomp  # noqa: PLC0415

    return {
        "ociVersionMin": OCI_VERSION_MINIMUM,
        "ociVersionMax": OCI_VERSION,
        "hooks": list(HOOKS),
        "mountOptions": list(MOUNT_OPTIONS),
        "linux": {
            "namespaces": list(NAMESPACES),
            "capabilities": list(capabilities.NAMES),
            "cgroup": {
                "v1": True,
                "v2": True,
                "systemd": True,
                "systemdUser": True,
                "rdma": True,
            },
            "seccomp": {
                "enabled": True,
                "actions": sorted(seccomp.ACTIONS),
                "operators": sorted(seccomp.OPERATORS),
                "archs": sorted(seccomp.ARCHITECTURES),
                "knownFlags": sorted(seccomp.FLAGS),
                "supportedFlags": sorted(seccomp.FLAGS),
            },
            "apparmor": {"enabled": True},
            "selinux": {"enabled": True},
            "intelRdt": {"enabled": True},
            "mountExtensions": {"idmap": {"enabled": True}},
            "netDevices": {"enabled": True},
        },
        "annotations": annotations,
    }
