"""The device by which a program is the other end of a network link: tun(4)."""

import os

from ketch.errors import UnavailableError

DEVICE = "/dev/net/tun"


def check() -> None:
    """See that the caller can open the device.

    Raises:
        UnavailableError: it cannot; why, and what would mend it.
    """
    try:
        os.close(os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        raise UnavailableError(
            f"{DEVICE} is missing",
            "as root: modprobe tun; in a container, give it the device",
        ) from None
    except PermissionError:
        raise UnavailableError(
            f"{DEVICE} is not this user's to open", f"as root: chmod 666 {DEVICE}"
        ) from None
    except OSError as error:
        raise UnavailableError(
            f"{DEVICE}: {(error.strerror or '').lower()}", "as root: modprobe tun"
        ) from error
