"""``linux.seccomp`` compiled to a BPF program by libseccomp.

Where a profile refuses by default, a stub goes before the program: a system call with a number
above all that the profile names fails with ENOSYS, not with the default. Such a profile was
written before the call existed and cannot have meant to refuse it; and C libraries try new calls
first and fall back to old ones on ENOSYS alone, so that EPERM would break programs on a kernel
newer than the profile. runc does the same (libcontainer/seccomp/patchbpf).
"""

import ctypes
import errno
import os
import struct

from ketch.errors import InvalidArgumentError, UnavailableError, UnsupportedError
from ketch.linux.seccomp import INSTRUCTION_BYTES, MAX_INSTRUCTIONS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.spec.runtime import Seccomp, SeccompRule

LIBRARY = "libseccomp.so.2"

# <seccomp.h>
_ACTIONS = {
    "SCMP_ACT_KILL": 0x00000000,
    "SCMP_ACT_KILL_THREAD": 0x00000000,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": 0x00050000,
    "SCMP_ACT_NOTIFY": 0x7FC00000,
    "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
}
_OPERATORS = {
    "SCMP_CMP_NE": 1, "SCMP_CMP_LT": 2, "SCMP_CMP_LE": 3, "SCMP_CMP_EQ": 4, "SCMP_CMP_GE": 5,
    "SCMP_CMP_GT": 6, "SCMP_CMP_MASKED_EQ": 7,
}  # fmt: skip
_WITH_VALUE = ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE")
_PERMISSIVE = ("SCMP_ACT_ALLOW", "SCMP_ACT_LOG", "SCMP_ACT_TRACE")
_ATTRIBUTE_OPTIMIZE = 8
_BINARY_TREE = 2
# From here on a search by halves beats one comparison after another, as runc has it.
_MANY_NAMES = 32
_UNKNOWN_NAME = -1

_TOKEN_X32 = 0x4000003E
_AUDIT_X86_64 = 0xC000003E
_AUDIT_S390 = (0x00000016, 0x80000016)
_X32_BIT = 0x40000000
_NEVER_ABOVE = 0xFFFFFFFF

# <linux/bpf_common.h>
_LOAD_WORD, _JUMP, _JUMP_EQUAL, _JUMP_ABOVE, _JUMP_BITS, _RETURN = (
    0x20,
    0x05,
    0x15,
    0x25,
    0x45,
    0x06,
)
_OFFSET_NUMBER, _OFFSET_ARCHITECTURE = 0, 4


class _Comparison(ctypes.Structure):
    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("value", ctypes.c_uint64),
        ("value_two", ctypes.c_uint64),
    )


class _Version(ctypes.Structure):
    _fields_ = (("major", ctypes.c_uint), ("minor", ctypes.c_uint), ("micro", ctypes.c_uint))


class Libseccomp:
    """The library, loaded.

    Raises:
        UnavailableError: it is not installed.
    """

    def __init__(self) -> None:
        try:
            self._library = library = ctypes.CDLL(LIBRARY)
        except OSError as error:
            raise UnavailableError(
                f"seccomp: cannot load {LIBRARY}, which compiles profiles: {error}",
                "install it (Debian: apt-get install libseccomp2), or go without confinement: "
                "--security-opt seccomp=unconfined",
            ) from error
        context = ctypes.c_void_p
        library.seccomp_init.restype = context
        library.seccomp_init.argtypes = (ctypes.c_uint32,)
        library.seccomp_release.argtypes = (context,)
        library.seccomp_attr_set.argtypes = (context, ctypes.c_int, ctypes.c_uint32)
        library.seccomp_arch_native.restype = ctypes.c_uint32
        library.seccomp_arch_resolve_name.restype = ctypes.c_uint32
        library.seccomp_arch_add.argtypes = (context, ctypes.c_uint32)
        library.seccomp_syscall_resolve_name_arch.argtypes = (ctypes.c_uint32, ctypes.c_char_p)
        library.seccomp_rule_add_array.argtypes = (
            context, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p,
        )  # fmt: skip
        library.seccomp_export_bpf.argtypes = (context, ctypes.c_int)
        library.seccomp_version.restype = ctypes.POINTER(_Version)

    def version(self) -> str:
        """The library's version, such as ``2.5.4``."""
        version = self._library.seccomp_version().contents
        return f"{version.major}.{version.minor}.{version.micro}"

    def architecture(self, name: str) -> int:
        """The library's token for a ``SCMP_ARCH_*`` name; 0 for one that it does not know."""
        token: int = self._library.seccomp_arch_resolve_name(
            name.removeprefix("SCMP_ARCH_").lower().encode()
        )
        return token

    def compile(self, section: "Seccomp") -> bytes:
        """The program of ``linux.seccomp``, which has been validated.

        System calls that the library does not know are left out, as in runc.

        Raises:
            UnsupportedError: the library does not know an architecture, cannot combine it with
                this machine's, or the program is too long for the kernel.
            InvalidArgumentError: the library refused a rule.
        """
        default = _action(section["defaultAction"], section.get("defaultErrnoRet"))
        context = self._library.seccomp_init(default)
        if not context:
            raise UnsupportedError(
                f"linux.seccomp.defaultAction: {section['defaultAction']} is not supported by "
                "this kernel"
            )
        try:
            tokens = self._add_architectures(context, section.get("architectures", []))
            rules = section.get("syscalls", [])
            if sum(len(rule["names"]) for rule in rules) > _MANY_NAMES:
                # Before libseccomp 2.5 there is no such attribute, and the program is but slower.
                self._library.seccomp_attr_set(context, _ATTRIBUTE_OPTIMIZE, _BINARY_TREE)
            for index, rule in enumerate(rules):
                self._add_rule(context, rule, f"linux.seccomp.syscalls[{index}]", default)
            program = self._export(context)
        finally:
            self._library.seccomp_release(context)
        if section["defaultAction"] not in _PERMISSIVE and default != _action(
            "SCMP_ACT_ERRNO", errno.ENOSYS
        ):
            program = _unknown_calls_stub(self._last_numbers(tokens, rules)) + program
        length = len(program) // INSTRUCTION_BYTES
        if length > MAX_INSTRUCTIONS:
            raise UnsupportedError(
                f"linux.seccomp: the profile becomes {length} instructions, and the kernel takes "
                f"{MAX_INSTRUCTIONS}",
                "list fewer system calls or architectures",
            )
        return program

    def _add_architectures(self, context: int, names: list[str]) -> list[int]:
        """Add them to the native one, which is in every filter, and return all tokens."""
        tokens = [self._library.seccomp_arch_native()]
        for index, name in enumerate(names):
            token = self.architecture(name)
            result = self._library.seccomp_arch_add(context, token) if token else -errno.EINVAL
            if result not in (0, -errno.EEXIST):
                reason = (
                    "it has the other byte order than this machine's"
                    if result == -errno.EDOM
                    else f"libseccomp {self.version()} does not know it"
                )
                raise UnsupportedError(f"linux.seccomp.architectures[{index}]: {name}: {reason}")
            if token not in tokens:
                tokens.append(token)
        return tokens

    def _add_rule(self, context: int, rule: "SeccompRule", path: str, default: int) -> None:
        action = _action(rule["action"], rule.get("errnoRet"))
        if action == default:
            return
        comparisons = [
            _Comparison(arg["index"], _OPERATORS[arg["op"]], arg["value"], arg.get("valueTwo", 0))
            for arg in rule.get("args", ())
        ]
        # libseccomp takes one comparison an argument. Where a rule has more, runc makes each of
        # its comparisons a rule of its own, so that any of them suffices.
        repeated = len({c.argument for c in comparisons}) < len(comparisons)
        groups = [[comparison] for comparison in comparisons] if repeated else [comparisons]
        for name in rule["names"]:
            number = self._number(self._library.seccomp_arch_native(), name)
            if number == _UNKNOWN_NAME:
                continue
            for group in groups:
                result = self._library.seccomp_rule_add_array(
                    context, action, number, len(group), (_Comparison * len(group))(*group)
                )
                if result < 0:
                    raise InvalidArgumentError(
                        f"{path}: libseccomp refuses {rule['action']} for {name}: "
                        f"{os.strerror(-result)}"
                    )

    def _number(self, token: int, name: str) -> int:
        """The call's number; below -1 for one of other architectures only."""
        number: int = self._library.seccomp_syscall_resolve_name_arch(token, name.encode())
        return number

    def _export(self, context: int) -> bytes:
        descriptor = os.memfd_create("seccomp", os.MFD_CLOEXEC)
        with os.fdopen(descriptor, "r+b") as stream:
            result = self._library.seccomp_export_bpf(context, descriptor)
            if result < 0:
                raise UnsupportedError(
                    f"linux.seccomp: libseccomp cannot compile the profile: {os.strerror(-result)}"
                )
            stream.seek(0)
            return stream.read()

    def _last_numbers(self, tokens: list[int], rules: "list[SeccompRule]") -> dict[int, int]:
        """The highest number that the rules name, for each architecture of which they name any."""
        names = {name for rule in rules for name in rule["names"]}
        lasts = {
            token: max((self._number(token, name) for name in names), default=-1)
            for token in tokens
        }
        return {token: last for token, last in lasts.items() if last > 0}


def _action(name: str, value: int | None) -> int:
    """The kernel's SECCOMP_RET_* with its value; EPERM where the action takes one and none is."""
    if name not in _WITH_VALUE:
        return _ACTIONS[name]
    return _ACTIONS[name] | (errno.EPERM if value is None else value)


def _unknown_calls_stub(lasts: dict[int, int]) -> bytes:
    """The instructions that answer ENOSYS to numbers above ``lasts``, and else fall through.

    Args:
        lasts: the highest known number by libseccomp's token of an architecture.
    """
    enosys = (_RETURN, 0, 0, _action("SCMP_ACT_ERRNO", errno.ENOSYS))
    sections = []
    for token, last in lasts.items():
        if token == _TOKEN_X32:
            # The kernel tells x32 from x86_64 by a bit of the number, not by the architecture.
            if _AUDIT_X86_64 in lasts:
                continue
            above = [
                (_JUMP_BITS, 0, 2, _X32_BIT),
                (_JUMP_ABOVE, 0, 1, last),
            ]
            architecture = _AUDIT_X86_64
        elif token == _AUDIT_X86_64:
            above = [
                (_JUMP_BITS, 1, 0, _X32_BIT),
                (_JUMP_ABOVE, 1, 2, last),
                (_JUMP_ABOVE, 0, 1, lasts.get(_TOKEN_X32, _NEVER_ABOVE)),
            ]
            architecture = token
        else:
            above = [(_JUMP_ABOVE, 0, 1, last)]
            if token in _AUDIT_S390:
                # A number too large for the instruction's own field is passed aside, and shows
                # here as 0 when the kernel does not know it; setup(2), once 0, is long gone.
                above.insert(0, (_JUMP_EQUAL, 1, 0, 0))
            architecture = token
        sections.append((architecture, [(_LOAD_WORD, 0, 0, _OFFSET_NUMBER), *above, enosys]))
    code = [(_LOAD_WORD, 0, 0, _OFFSET_ARCHITECTURE)]
    remaining = sum(len(body) + 2 for _, body in sections)
    for architecture, body in sections:
        remaining -= len(body) + 2
        code += [
            (_JUMP_EQUAL, 0, len(body) + 1, architecture),
            *body,
            (_JUMP, 0, 0, remaining),
        ]
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code)
