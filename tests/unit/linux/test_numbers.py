"""System calls' numbers, as libseccomp has them from the kernel's tables."""

import ctypes

import pytest

from ketch.linux import libc


@pytest.mark.parametrize("machine", sorted(libc._OLDER_NUMBERS))
def test_numbers_are_the_kernels(machine: str) -> None:
    try:
        library = ctypes.CDLL("libseccomp.so.2")
    except OSError:
        pytest.skip("libseccomp is not installed")
    resolve_name = library.seccomp_arch_resolve_name
    resolve_name.restype = ctypes.c_uint32
    token = resolve_name(machine.encode())
    if not token:
        pytest.skip(f"this libseccomp does not know {machine}")
    found = {
        name: library.seccomp_syscall_resolve_name_arch(ctypes.c_uint32(token), name.encode())
        for name in libc._OLDER_NUMBERS[machine]
    }
    assert found == libc._OLDER_NUMBERS[machine]
