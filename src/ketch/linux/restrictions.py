"""What a machine's administrator, or its distribution, does not let ordinary users do.

Sources: namespaces(7), user_namespaces(7), Documentation/admin-guide/sysctl/user.rst; Debian's
``kernel.unprivileged_userns_clone``; Ubuntu's ``kernel.apparmor_restrict_unprivileged_userns``
(since 23.10); Documentation/networking/ip-sysctl.rst.
"""

import errno
import os

from ketch.errors import UnavailableError
from ketch.linux import capabilities, namespaces

USER_NAMESPACES_MAX = "user.max_user_namespaces"
DEBIANS = "kernel.unprivileged_userns_clone"
UBUNTUS = "kernel.apparmor_restrict_unprivileged_userns"
PROFILE = f"{os.path.dirname(os.path.abspath(__file__))}/apparmor.profile"
_SYS_ADMIN = 1 << 21  # capabilities(7)
FIRST_PORT = "net.ipv4.ip_unprivileged_port_start"


def sysctl(name: str) -> str:
    """The value of a kernel parameter; empty where there is none."""
    try:
        with open(f"/proc/sys/{name.replace('.', '/')}", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return ""


def of_user_namespaces() -> UnavailableError | None:
    """Why ordinary users cannot make user namespaces, as far as the kernel's settings say."""
    if not os.path.exists("/proc/self/ns/user"):
        return UnavailableError(
            "this kernel has no user namespaces", "boot one that was built with CONFIG_USER_NS"
        )
    if sysctl(USER_NAMESPACES_MAX) == "0":
        return UnavailableError(
            f"user namespaces are switched off: {USER_NAMESPACES_MAX} is 0",
            f"as root: sysctl -w {USER_NAMESPACES_MAX}=15000",
        )
    if sysctl(DEBIANS) == "0":
        return UnavailableError(
            f"ordinary users may not make user namespaces: {DEBIANS} is 0",
            f"as root: sysctl -w {DEBIANS}=1",
        )
    if sysctl(UBUNTUS) == "1" and not _is_profiled():
        return UnavailableError(
            f"AppArmor lets programs without a profile do nothing in user namespaces: {UBUNTUS} "
            "is 1",
            f"as root: install -m 644 {PROFILE} /etc/apparmor.d/ketch && "
            "apparmor_parser -r /etc/apparmor.d/ketch",
        )
    return None


def of_root() -> UnavailableError | None:
    """Why root can start no containers, as in a container that is given little."""
    if not capabilities.get()[0] & _SYS_ADMIN:
        return UnavailableError(
            "root lacks CAP_SYS_ADMIN here",
            "that needs root, with CAP_SYS_ADMIN: in a container, whoever made it gives it that, "
            "as --privileged does",
        )
    if namespaces.in_initial_user_namespace() or namespaces.owns("mnt"):
        return None
    return UnavailableError(
        "this user namespace has no mount namespace of its own",
        "make one with it, as unshare --mount does, or run ketch outside, where it makes all that "
        "it needs",
    )


def refused(error: OSError) -> UnavailableError:
    """Why the kernel refused to make a user namespace, or to give it its ids.

    Args:
        error: what unshare(2) said, or what came after it.
    """
    if found := of_user_namespaces():
        return found
    if error.errno in {errno.ENOSPC, errno.EUSERS}:
        return UnavailableError(
            f"this user has as many user namespaces as {USER_NAMESPACES_MAX} allows, or they are "
            "too deep in one another",
            f"end what has them (lsns -t user), or as root: sysctl -w {USER_NAMESPACES_MAX}=15000",
        )
    if error.errno in {errno.EPERM, errno.EACCES}:
        return UnavailableError(
            f"user namespaces are not permitted here: {(error.strerror or '').lower()}",
            "this process is in a chroot, or in a sandbox whose maker forbids them: docker run "
            "--security-opt seccomp=unconfined --security-opt apparmor=unconfined",
        )
    return UnavailableError(f"a user namespace cannot be made: {error}")


def _is_profiled() -> bool:
    """Whether a profile of AppArmor's counts for this process: ``NAME (MODE)``, not unconfined."""
    try:
        with open("/proc/self/attr/current", encoding="utf-8", errors="replace") as file:
            label = file.read().strip("\0\n")
    except OSError:
        return False
    return label not in {"", "unconfined"} and not label.startswith("unprivileged_userns")


def own_id(file: str) -> int:
    """What the machine calls the caller's first id, whatever namespace the caller is in.

    Args:
        file: ``uid_map`` or ``gid_map``.
    """
    first, outside, _ = ranges(file)[0]
    own = os.getuid() if file == "uid_map" else os.getgid()
    return outside + own - first


def count(file: str) -> int:
    """How many ids the caller's user namespace has; ``file`` as above."""
    return sum(size for _, _, size in ranges(file))


def ranges(file: str) -> list[tuple[int, int, int]]:
    """The ids of the caller's user namespace: first one, what it is outside, how many.

    Args:
        file: ``uid_map`` or ``gid_map``.
    """
    with open(f"/proc/self/{file}", encoding="ascii") as lines:
        return [(int(one), int(other), int(size)) for one, other, size in map(str.split, lines)]
