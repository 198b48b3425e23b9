"""Seccomp profiles: Docker's format, turned into ``linux.seccomp`` of the runtime specification.

Docker's format is that section with rules that hold under conditions: capabilities, architecture,
kernel version. https://docs.docker.com/engine/security/seccomp/
"""

from ketch.errors import InvalidArgumentError
from ketch.spec import json_text
from ketch.spec.digits import decimal
from ketch.spec.shape import (
    UINT32,
    UINT64,
    Misfit,
    array,
    choice,
    integer,
    record,
    shown,
    text,
    texts,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import Any

    from ketch.spec.runtime import Seccomp, SeccompRule
    from ketch.spec.shape import Shape

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

_ACTION = choice(*ACTIONS)
_ARCHITECTURE = choice(*ARCHITECTURES)
_ARGUMENTS = array(record({
    "index!": integer(0, 5), "value!": UINT64, "valueTwo": UINT64, "op!": choice(*OPERATORS),
}))  # fmt: skip
_COMMON: "dict[str, Shape]" = {
    "defaultAction!": _ACTION,
    "defaultErrnoRet": UINT32,
    "flags": array(choice(*FLAGS)),
    "listenerPath": text,
    "listenerMetadata": text,
    "architectures": array(_ARCHITECTURE),
}
_RULE: "dict[str, Shape]" = {"action!": _ACTION, "errnoRet": UINT32, "args": _ARGUMENTS}

SECTION = record({**_COMMON, "syscalls": array(record({"names!": texts, **_RULE}))})
"""The shape of ``linux.seccomp``."""

_CONDITION = record({"caps": texts, "arches": texts, "minKernel": text})
_PROFILE = record({
    **_COMMON,
    "archMap": array(record({
        "architecture!": _ARCHITECTURE, "subArchitectures": array(_ARCHITECTURE),
    })),
    "syscalls": array(record({
        "names": texts, "name": text, **_RULE, "includes": _CONDITION, "excludes": _CONDITION,
    })),
})  # fmt: skip


def parse(text: str | bytes) -> "dict[str, Any]":
    """Read a profile file.

    Returns:
        The profile, of the shape that it should have; what it does not define is still there, what
        is null is not. It is empty where it has neither default action nor rules.

    Raises:
        InvalidArgumentError: not JSON, or not of that shape; the message names the field.
    """
    try:
        profile = json_text.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidArgumentError(
            f"Decoding seccomp profile failed: {error}",
            "a profile is a JSON object, such as Docker's default.json",
        ) from error
    if not isinstance(profile, dict):
        raise InvalidArgumentError("seccomp profile: the profile must be an object")
    if not profile.get("defaultAction") and not profile.get("syscalls"):
        return {}
    try:
        # What makes a filter at all is asked for first.
        _ACTION(profile.get("defaultAction"))
    except Misfit as misfit:
        raise _malformed("defaultAction", misfit) from misfit
    try:
        _PROFILE(profile)
    except Misfit as misfit:
        raise _malformed("".join(reversed(misfit.path)).lstrip("."), misfit) from misfit
    return profile


def to_oci(
    profile: "dict[str, Any]", capabilities: "Collection[str]", machine: str, release: str
) -> "Seccomp | None":
    """Keep the rules whose conditions hold, in the runtime specification's form.

    Args:
        profile: in Docker's format, as ``parse`` returns it.
        capabilities: the container's bounding set, by name.
        machine: the architecture as uname(2) has it.
        release: the kernel release as uname(2) has it.

    Returns:
        The section; None for an empty profile, which Docker takes as no confinement.

    Raises:
        InvalidArgumentError: a rule says one thing twice, or nothing; the message names it.
    """
    if not profile:
        return None
    name = _MACHINES.get(machine, (machine, ""))[0]
    section: Seccomp = {"defaultAction": profile["defaultAction"]}
    if "defaultErrnoRet" in profile:
        section["defaultErrnoRet"] = profile["defaultErrnoRet"]
    if "flags" in profile:
        section["flags"] = profile["flags"]
    if listed := architectures(profile, machine):
        section["architectures"] = listed
    if profile.get("listenerPath"):
        section["listenerPath"] = profile["listenerPath"]
    if profile.get("listenerMetadata"):
        section["listenerMetadata"] = profile["listenerMetadata"]
    conditions = _Conditions(capabilities, name, _release(release))
    section["syscalls"] = [
        _rule(rule, f"syscalls[{index}].")
        for index, rule in enumerate(profile.get("syscalls", ()))
        if conditions.hold(rule, f"syscalls[{index}].")
    ]
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
        self, condition: "dict[str, Any]", path: str
    ) -> tuple[list[str], list[str], tuple[int, int] | None]:
        minimum = None
        if version := condition.get("minKernel"):
            major, minor = (decimal(part, 3) for part in (*version.split(".", 1), "")[:2])
            if major is None or minor is None or not major + minor:
                raise InvalidArgumentError(
                    f"seccomp profile: {path}.minKernel must be a kernel version such as 4.8, "
                    f"not {shown(version)}"
                )
            minimum = major, minor
        return condition.get("caps", []), condition.get("arches", []), minimum


def _release(release: str) -> tuple[int, int]:
    """The two numbers at the head of a kernel release: 6.1.0-18-amd64 is (6, 1)."""
    numbers = []
    for part in release.split(".")[:2]:
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        numbers.append(int(digits) if digits else 0)
    return numbers[0], numbers[1] if len(numbers) > 1 else 0


def architectures(profile: "dict[str, Any]", machine: str) -> list[str]:
    """Returns a profile's own list, or the entry of its map that is for a machine.

    Raises:
        InvalidArgumentError: it has both.
    """
    native = _MACHINES.get(machine, ("", ""))[1]
    listed: list[str] = profile.get("architectures", [])
    mapped = profile.get("archMap", [])
    if listed and mapped:
        raise InvalidArgumentError(
            "both 'architectures' and 'archMap' are specified in the seccomp profile, "
            "use either 'architectures' or 'archMap'"
        )
    for entry in mapped:
        if entry["architecture"] == native:
            return [native, *entry.get("subArchitectures", ())]
    return listed


def _rule(given: "dict[str, Any]", path: str) -> "SeccompRule":
    names = given.get("names", [])
    if given.get("name"):
        if names:
            raise InvalidArgumentError(
                f"{path}name: both 'name' and 'names' are specified in the seccomp profile, "
                "use either 'name' or 'names'"
            )
        names = [given["name"]]
    if not names or not all(names):
        raise InvalidArgumentError(
            f"seccomp profile: {path}names must have at least one system call's name"
        )
    rule: SeccompRule = {"names": names, "action": given["action"]}
    if "errnoRet" in given:
        rule["errnoRet"] = given["errnoRet"]
    if given.get("args"):
        rule["args"] = [
            {name: arg[name] for name in ("index", "value", "op", "valueTwo") if name in arg}  # type: ignore[misc]
            for arg in given["args"]
        ]
    return rule


def _malformed(path: str, misfit: Misfit) -> InvalidArgumentError:
    return InvalidArgumentError(f"seccomp profile: {path} {misfit.message}")
