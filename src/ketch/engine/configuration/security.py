"""``--security-opt``: what it asks for, and what this kernel has of it."""

from ketch.errors import InvalidArgumentError
from ketch.spec.values import boolean, quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.spec.container import HostConfig

_LABEL_FIELDS = ("user", "role", "type", "level", "filetype", "nested")


class SecurityOptions:
    """What a container's security options come to.

    Attributes:
        no_new_privileges: whether executing a file can grant nothing.
        seccomp: the profile's text; empty for the default one, ``sandbox`` for the narrower one,
            ``unconfined`` for none.
        apparmor: the profile's name, ``unconfined``, or empty for the default.
        labels: SELinux label fields; ``{"disable": ""}`` for none at all.
        writable_cgroups: whether the container may change its own cgroup.
    """

    __slots__ = ("apparmor", "labels", "no_new_privileges", "seccomp", "writable_cgroups")

    def __init__(self) -> None:
        self.no_new_privileges = False
        self.seccomp = ""
        self.apparmor = ""
        self.labels: dict[str, str] = {}
        self.writable_cgroups: bool | None = None

    def process_label(self) -> str:
        """Returns the SELinux context of the program; empty for the caller's own."""
        if "disable" in self.labels or not self.labels:
            return ""
        fields = _CONTEXT | self.labels
        return ":".join(fields[name] for name in ("user", "role", "type", "level"))


# What container policies allow containers to be.
_CONTEXT = {"user": "system_u", "role": "system_r", "type": "container_t", "level": "s0"}


def security_options(resources: "HostConfig") -> SecurityOptions:
    """Reads a container's security options.

    Raises:
        InvalidArgumentError: an option is unknown or malformed.
    """
    found = SecurityOptions()
    for option in resources.get("SecurityOpt", ()):
        if option in {"no-new-privileges", "disable"}:
            found.no_new_privileges |= option == "no-new-privileges"
            if option == "disable":
                found.labels["disable"] = ""
            continue
        separator = "=" if "=" in option else ":"
        name, given, value = option.partition(separator)
        if not given:
            raise InvalidArgumentError(f"invalid --security-opt 1: {quoted(option)}", _KNOWN)
        if name == "label":
            _take_label(found, value, option)
        elif name == "apparmor":
            found.apparmor = value
        elif name == "seccomp" and value:
            found.seccomp = "" if value == "builtin" else value
        elif name == "no-new-privileges":
            found.no_new_privileges = _truth(option, value)
        elif name == "writable-cgroups":
            found.writable_cgroups = _truth(option, value)
        else:
            raise InvalidArgumentError(f"invalid --security-opt 2: {quoted(option)}", _KNOWN)
    return found


_KNOWN = (
    "known are seccomp=FILE|sandbox|unconfined, no-new-privileges, label=..., apparmor=..., "
    "systempaths=unconfined and writable-cgroups=true"
)


def _take_label(found: SecurityOptions, value: str, option: str) -> None:
    if value == "disable":
        found.labels["disable"] = ""
        return
    field, colon, text = value.partition(":")
    if not colon or field not in _LABEL_FIELDS:
        raise InvalidArgumentError(
            f"invalid --security-opt 2: {quoted(option)}: bad label option",
            f"label=disable, or label={'|'.join(_LABEL_FIELDS)}:VALUE",
        )
    found.labels[field] = text


def _truth(option: str, value: str) -> bool:
    try:
        return boolean(value)
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"invalid --security-opt 2: {quoted(option)}") from error
