"""A device policy as the program that a v2 cgroup runs at each use of a device.

Source: BPF_PROG_TYPE_CGROUP_DEVICE in bpf(2), struct bpf_cgroup_dev_ctx in <linux/bpf.h>.
"""

from ketch.cgroups.devices import ALL, EVERYTHING
from ketch.spec import bpf

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.cgroups.devices import Policy

_VERDICT, _CONTEXT, _TYPE, _REQUEST, _MAJOR, _MINOR = range(6)  # registers


def program(target: "Policy") -> bytes:
    """Compile a policy to a program of type BPF_PROG_TYPE_CGROUP_DEVICE.

    It judges as the v1 kernel does: an allowing exception must cover the whole access, a denying
    one need only touch it. The context's first word has the access in its upper and
    the type in its lower half; major and minor follow.
    """
    code = [
        bpf.instruction(bpf.LOAD_WORD, _TYPE, source=_CONTEXT, offset=0),
        bpf.instruction(bpf.MOVE_32, _REQUEST, source=_TYPE),
        bpf.instruction(bpf.AND_IMMEDIATE_32, _TYPE, 0xFFFF),
        bpf.instruction(bpf.SHIFT_RIGHT_IMMEDIATE_32, _REQUEST, 16),
        bpf.instruction(bpf.LOAD_WORD, _MAJOR, source=_CONTEXT, offset=4),
        bpf.instruction(bpf.LOAD_WORD, _MINOR, source=_CONTEXT, offset=8),
    ]
    for (kind, major, minor), access in sorted(target.exceptions.items()):
        code += _exception(kind, major, minor, access, allowed=not target.allows)
    code += [
        bpf.instruction(bpf.MOVE_IMMEDIATE_32, _VERDICT, int(target.allows)),
        bpf.instruction(bpf.EXIT, 0),
    ]
    return b"".join(code)


def _exception(kind: int, major: int, minor: int, access: int, *, allowed: bool) -> list[bytes]:
    # (instructions before the jump, jump taken when the exception does not apply, its operands)
    tests: list[tuple[list[bytes], int, int, int]] = [([], bpf.JUMP_NOT_EQUAL, _TYPE, kind)]
    if access != EVERYTHING:
        copy = bpf.instruction(bpf.MOVE_32, _VERDICT, source=_REQUEST)
        if allowed:
            # It must cover the request: nothing asked for lies outside of it.
            keep = bpf.instruction(bpf.AND_IMMEDIATE_32, _VERDICT, EVERYTHING & ~access)
            tests.append(([copy, keep], bpf.JUMP_NOT_EQUAL, _VERDICT, 0))
        else:
            keep = bpf.instruction(bpf.AND_IMMEDIATE_32, _VERDICT, access)
            tests.append(([copy, keep], bpf.JUMP_EQUAL, _VERDICT, 0))
    if major != ALL:
        tests.append(([], bpf.JUMP_NOT_EQUAL, _MAJOR, major))
    if minor != ALL:
        tests.append(([], bpf.JUMP_NOT_EQUAL, _MINOR, minor))
    left = sum(len(before) + 1 for before, *_ in tests) + 2
    code: list[bytes] = []
    for before, jump, register, value in tests:
        code += before
        code.append(bpf.instruction(jump, register, value, offset=left - len(code) - 1))
    return [
        *code,
        bpf.instruction(bpf.MOVE_IMMEDIATE_32, _VERDICT, int(allowed)),
        bpf.instruction(bpf.EXIT, 0),
    ]
