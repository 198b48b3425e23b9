"""The names of a UTS namespace: sethostname(2), setdomainname(2)."""

import ctypes
import os

from ketch.linux import libc

_sethostname = libc.function("sethostname", ctypes.c_char_p, ctypes.c_size_t)
_setdomainname = libc.function("setdomainname", ctypes.c_char_p, ctypes.c_size_t)


def set_host_name(name: str) -> None:
    """Set the host name; at most 64 bytes."""
    encoded = os.fsencode(name)
    _sethostname(name, encoded, len(encoded))


def set_domain_name(name: str) -> None:
    """Set the NIS domain name; at most 64 bytes."""
    encoded = os.fsencode(name)
    _setdomainname(name, encoded, len(encoded))
