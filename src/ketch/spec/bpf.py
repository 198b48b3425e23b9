"""The instruction set of BPF programs, as far as ketch's use it. Pure.

Source: Documentation/bpf/standardization/instruction-set.rst.
"""

from struct import Struct

LOAD_WORD = 0x61
LOAD_MAP = 0x18  # takes two instructions; the descriptor is the first one's value
STORE_WORD = 0x63
MOVE = 0xBF
MOVE_IMMEDIATE = 0xB7
MOVE_32 = 0xBC
MOVE_IMMEDIATE_32 = 0xB4
ADD_IMMEDIATE = 0x07
AND_IMMEDIATE_32 = 0x54
SHIFT_RIGHT_IMMEDIATE_32 = 0x74
JUMP_EQUAL = 0x15
JUMP_NOT_EQUAL = 0x55
JUMP_NOT_EQUAL_32 = 0x56
CALL = 0x85
EXIT = 0x95

FRAME = 10  # the register that points behind the stack

_INSTRUCTION = Struct("=BBhi")


def instruction(code: int, to: int = 0, value: int = 0, source: int = 0, offset: int = 0) -> bytes:
    """Encode one instruction in this machine's byte order.

    Args:
        code: the operation.
        to: the register that it changes or compares.
        value: its constant, 32 bits with sign.
        source: the register that it reads.
        offset: of a memory access in bytes, or of a jump in instructions from the next one on.
    """
    return _INSTRUCTION.pack(code, to | source << 4, offset, value)
