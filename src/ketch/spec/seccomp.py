"""Seccomp profiles: Docker's format, turned into ``linux.seccomp`` of the runtime specification.

Docker's format is that section with rules that hold under conditions: capabilities, architecture,
kernel version. https://docs.docker.com/engine/security/seccomp/
"""

from ketch.errors import InvalidArgumentError
from ketch.spec import json_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import Any

    from ketch.spec.runtime import Seccomp, SeccompArg, SeccompRule

ACTIONS = (
    "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_TRAP",
    "SCMP_ACT_ERRNO", "SCMP_ACT_TRACE", "SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_NOTIFY",
)  # fmt: skip
OPERATORS = (
    "SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_LE", "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT",
    "SCMP_CMP_MASKED_EQ",
)  # fmt: skip
FLAGS = (
    "SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
)  # fmt: skip
ARCHITECTURES = (
    "SCMP_ARCH_X86", "SCMP_ARCH_X86_64", "SCMP_ARCH_X32", "SCMP_ARCH_ARM", "SCMP_ARCH_AARCH64",
    "SCMP_ARCH_LOONGARCH64", "SCMP_ARCH_M68K", "SCMP_ARCH_MIPS", "SCMP_ARCH_MIPS64",
    "SCMP_ARCH_MIPS64N32", "SCMP_ARCH_MIPSEL", "SCMP_ARCH_MIPSEL64", "SCMP_ARCH_MIPSEL64N32",
    "SCMP_ARCH_PPC", "SCMP_ARCH_PPC64", "SCMP_ARCH_PPC64LE", "SCMP_ARCH_S390", "SCMP_ARCH_S390X",
    "SCMP_ARCH_SH", "SCMP_ARCH_SHEB", "SCMP_ARCH_PARISC", "SCMP_ARCH_PARISC64",
    "SCMP_ARCH_RISCV64",
)  # fmt: skip

# uname(2)'s machine: its name in a profile's conditions, and in the runtime specification.
_MACHINES = {
    "i386": ("x86", "SCMP_ARCH_X86"),
    "i686": ("x86", "SCMP_ARCH_X86"),
    "x86_64": ("amd64", "SCMP_ARCH_X86_64"),
    "armv6l": ("arm", "SCMP_ARCH_ARM"),
    "armv7l": ("arm", "SCMP_ARCH_ARM"),
    "aarch64": ("arm64", "SCMP_ARCH_AARCH64"),
    "loongarch64": ("loong64", "SCMP_ARCH_LOONGARCH64"),
    "ppc64": ("ppc64", "SCMP_ARCH_PPC64"),
    "ppc64le": ("ppc64le", "SCMP_ARCH_PPC64LE"),
    "riscv64": ("riscv64", "SCMP_ARCH_RISCV64"),
    "s390x": ("s390x", "SCMP_ARCH_S390X"),
}

_UINT32 = 0xFFFFFFFF
_UINT64 = 0xFFFFFFFFFFFFFFFF


def parse(text: str | bytes) -> "dict[str, Any]":
    """Read a profile file.

    Raises:
        InvalidArgumentError: not JSON, or not an object.
    """
    try:
        profile = json_text.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidArgumentError(
            f"Decoding seccomp profile failed: {error}",
            "a profile is a JSON object, such as Docker's default.json",
        ) from error
    return _object(profile, "the profile")


def to_oci(
    profile: "dict[str, Any]", capabilities: "Collection[str]", machine: str, release: str
) -> "Seccomp | None":
    """Keep the rules whose conditions hold, in the runtime specification's form.

    Args:
        profile: in Docker's format; what it does not define is ignored, null is absence.
        capabilities: the container's bounding set, by name.
        machine: the architecture as uname(2) has it.
        release: the kernel release as uname(2) has it.

    Returns:
        The section; None for a profile without default action and rules, which Docker takes as
        no confinement.

    Raises:
        InvalidArgumentError: the profile is malformed; the message names the field.
    """
    rules = _array(profile, "syscalls", "")
    if not profile.get("defaultAction") and not rules:
        return None
    name, architecture = _MACHINES.get(machine, (machine, ""))
    section: Seccomp = {"defaultAction": _choice(profile, "defaultAction", "", ACTIONS)}
    if profile.get("defaultErrnoRet") is not None:
        section["defaultErrnoRet"] = _integer(profile, "defaultErrnoRet", "", _UINT32)
    architectures = _architectures(profile, architecture)
    if architectures:
        section["architectures"] = architectures
    if profile.get("flags") is not None:
        section["flags"] = _choices(profile, "flags", "", FLAGS)
    if profile.get("listenerPath"):
        section["listenerPath"] = _string(profile, "listenerPath", "")
    if profile.get("listenerMetadata"):
        section["listenerMetadata"] = _string(profile, "listenerMetadata", "")
    conditions = _Conditions(capabilities, name, _release(release))
    section["syscalls"] = kept = []
    for index, rule in enumerate(rules):
        path = f"syscalls[{index}]"
        if conditions.hold(_object(rule, path), f"{path}."):
            kept.append(_rule(rule, f"{path}."))
    return section


class _Conditions:
    """What the rules' conditions are held against."""

    __slots__ = ("architecture", "capabilities", "kernel")

    def __init__(
        self, capabilities: "Collection[str]", architecture: str, kernel: tuple[int, int]
    ) -> None:
        self.capabilities = capabilities
        self.architecture = architecture
        self.kernel = kernel

    def hold(self, rule: "dict[str, Any]", path: str) -> bool:
        """Whether a rule applies: everything included is there, and nothing excluded is."""
        includes, excludes = rule.get("includes"), rule.get("excludes")
        if includes:
            capabilities, architectures, minimum = self._read(includes, f"{path}includes")
            if (
                not all(capability in self.capabilities for capability in capabilities)
                or (architectures and self.architecture not in architectures)
                or (minimum and self.kernel < minimum)
            ):
                return False
        if excludes:
            capabilities, architectures, minimum = self._read(excludes, f"{path}excludes")
            if (
                any(capability in self.capabilities for capability in capabilities)
                or self.architecture in architectures
                or (minimum and self.kernel >= minimum)
            ):
                return False
        return True

    def _read(
        self, condition: object, path: str
    ) -> tuple[list[str], list[str], tuple[int, int] | None]:
        checked = _object(condition, path)
        return (
            _strings(checked, "caps", f"{path}."),
            _strings(checked, "arches", f"{path}."),
            self._minimum(checked, f"{path}."),
        )

    @staticmethod
    def _minimum(condition: "dict[str, Any]", path: str) -> tuple[int, int] | None:
        if not condition.get("minKernel"):
            return None
        version = _string(condition, "minKernel", path)
        major, _, minor = version.partition(".")
        if not (_is_number(major) and _is_number(minor)) or version == "0.0":
            raise _malformed(f"{path}minKernel", "a kernel version such as 4.8", version)
        return int(major), int(minor)


def _release(release: str) -> tuple[int, int]:
    """The two numbers at the head of a kernel release: 6.1.0-18-amd64 is (6, 1)."""
    numbers = []
    for part in release.split(".")[:2]:
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        numbers.append(int(digits) if digits else 0)
    return numbers[0], numbers[1] if len(numbers) > 1 else 0


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 3


def _architectures(profile: "dict[str, Any]", native: str) -> list[str]:
    """The profile's own list, or the entry of its map that is for this machine."""
    listed = _choices(profile, "architectures", "", ARCHITECTURES)
    mapped = _array(profile, "archMap", "")
    if listed and mapped:
        raise InvalidArgumentError(
            "both 'architectures' and 'archMap' are specified in the seccomp profile, "
            "use either 'architectures' or 'archMap'"
        )
    for index, entry in enumerate(mapped):
        path = f"archMap[{index}]"
        if _choice(_object(entry, path), "architecture", f"{path}.", ARCHITECTURES) == native:
            return [native, *_choices(entry, "subArchitectures", f"{path}.", ARCHITECTURES)]
    return listed


def _rule(given: "dict[str, Any]", path: str) -> "SeccompRule":
    names = _strings(given, "names", path)
    if given.get("name"):
        if names:
            raise InvalidArgumentError(
                f"{path}name: both 'name' and 'names' are specified in the seccomp profile, "
                "use either 'name' or 'names'"
            )
        names = [_string(given, "name", path)]
    if not names or not all(names):
        raise _malformed(f"{path}names", "at least one system call's name", names)
    rule: SeccompRule = {"names": names, "action": _choice(given, "action", path, ACTIONS)}
    if given.get("errnoRet") is not None:
        rule["errnoRet"] = _integer(given, "errnoRet", path, _UINT32)
    args = _array(given, "args", path)
    if args:
        rule["args"] = [
            _argument(_object(arg, f"{path}args[{index}]"), f"{path}args[{index}].")
            for index, arg in enumerate(args)
        ]
    return rule


def _argument(given: "dict[str, Any]", path: str) -> "SeccompArg":
    arg: SeccompArg = {
        "index": _integer(given, "index", path, 5),
        "value": _integer(given, "value", path, _UINT64),
        "op": _choice(given, "op", path, OPERATORS),
    }
    if given.get("valueTwo"):
        arg["valueTwo"] = _integer(given, "valueTwo", path, _UINT64)
    return arg


def _malformed(path: str, wanted: str, given: object) -> InvalidArgumentError:
    return InvalidArgumentError(f"seccomp profile: {path}: expected {wanted}, not {given!r}")


def _object(value: object, path: str) -> "dict[str, Any]":
    if not isinstance(value, dict):
        raise _malformed(path, "an object", value)
    return value


def _array(parent: "dict[str, Any]", key: str, path: str) -> "list[Any]":
    value = parent.get(key)
    if value is None:
        return []
    if not isinstance(value, list):
        raise _malformed(f"{path}{key}", "an array", value)
    return value


def _string(parent: "dict[str, Any]", key: str, path: str) -> str:
    value = parent.get(key)
    if not isinstance(value, str):
        raise _malformed(f"{path}{key}", "a string", value)
    return value


def _strings(parent: "dict[str, Any]", key: str, path: str) -> list[str]:
    values = _array(parent, key, path)
    # A profile has hundreds of names, and the path of each is needed only for an error.
    if not all(isinstance(value, str) for value in values):
        index = next(i for i, value in enumerate(values) if not isinstance(value, str))
        raise _malformed(f"{path}{key}[{index}]", "a string", values[index])
    return values


def _choice(parent: "dict[str, Any]", key: str, path: str, known: tuple[str, ...]) -> str:
    value = _string(parent, key, path)
    if value not in known:
        raise _malformed(f"{path}{key}", f"one of {', '.join(known)}", value)
    return value


def _choices(parent: "dict[str, Any]", key: str, path: str, known: tuple[str, ...]) -> list[str]:
    values = _strings(parent, key, path)
    for index, value in enumerate(values):
        if value not in known:
            raise _malformed(f"{path}{key}[{index}]", f"one of {', '.join(known)}", value)
    return values


def _integer(parent: "dict[str, Any]", key: str, path: str, maximum: int) -> int:
    value = parent.get(key)
    if type(value) is not int or not 0 <= value <= maximum:
        raise _malformed(f"{path}{key}", f"an integer from 0 to {maximum}", value)
    return value
