"""Device options: ``--device`` and ``--device-cgroup-rule``."""

import os.path

from ketch.errors import InvalidArgumentError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.spec.container import DeviceMapping
    from ketch.spec.runtime import DeviceRule


def is_cdi(text: str) -> bool:
    """Whether a device is named as the Container Device Interface does: vendor.com/class=name."""
    kind, equals, name = text.partition("=")
    vendor, slash, class_ = kind.partition("/")
    return bool(equals and slash and name and class_) and vendor[:1].isalpha()


def device(text: str) -> "DeviceMapping":
    """Reads ``host[:container][:permissions]``, the permissions made of r, w and m."""
    parts = text.split(":")
    if len(parts) > 3 or not parts[0]:
        raise InvalidArgumentError(f"bad format for path: {text}")
    source, target, permissions = parts[0], "", "rwm"
    if len(parts) == 3:
        target, permissions = parts[1], parts[2]
        if not _permissions(permissions):
            raise InvalidArgumentError(f"bad mode specified: {permissions}")
    elif len(parts) == 2 and _permissions(parts[1]):
        permissions = parts[1]
    elif len(parts) == 2:
        target = parts[1] or "."
    target = target or source
    if not target.startswith("/"):
        raise InvalidArgumentError(f"{target} is not an absolute path")
    return {
        "PathOnHost": source,
        "PathInContainer": os.path.normpath(target),
        "CgroupPermissions": permissions,
    }


def _permissions(text: str) -> bool:
    return 0 < len(text) == len(set(text)) and set(text) <= set("rwm")


def cgroup_rule(text: str) -> "DeviceRule":
    """Reads ``type major:minor permissions``, such as ``c 10:* rw``; ``*`` becomes -1."""
    from ketch.spec.digits import decimal  # noqa: PLC0415 - most containers have no such rule

    words = text.split(" ")
    if len(words) == 3:
        kind, numbers, access = words
        major, _, minor = numbers.partition(":")
        first, second = (-1 if each == "*" else decimal(each) for each in (major, minor))
        good = kind in {"a", "b", "c"} and 1 <= len(access) <= 3 and set(access) <= set("rwm")
        if good and first is not None and second is not None:
            return {
                "allow": True,
                "type": kind,
                "major": first,
                "minor": second,
                "access": access,
            }
    raise InvalidArgumentError(f"invalid device cgroup format '{text}'")
