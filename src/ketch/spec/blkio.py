"""Block I/O options: weights and throttles of single devices."""

from ketch.errors import InvalidArgumentError
from ketch.spec.digits import decimal
from ketch.spec.values import size, unsigned16

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.spec.container import ThrottleDevice, WeightDevice


def weight_device(text: str) -> "WeightDevice":
    """Reads ``--blkio-weight-device path:weight``."""
    path, weight = _split(text)
    try:
        number = unsigned16(weight)
    except InvalidArgumentError:
        number = 1  # outside the range, as what is no number is
    if number and not 10 <= number <= 1000:
        raise InvalidArgumentError(f"invalid weight for device: {text}")
    return {"Path": path, "Weight": number}


def byte_rate(text: str) -> "ThrottleDevice":
    """Reads ``--device-read-bps path:bytes`` and its like, in bytes a second."""
    path, rate = _split(text)
    try:
        return {"Path": path, "Rate": size(rate)}
    except InvalidArgumentError as error:
        raise InvalidArgumentError(
            f"invalid rate for device: {text}. The correct format is "
            "<device-path>:<number>[<unit>]. Number must be a positive integer. "
            "Unit is optional and can be kb, mb, or gb"
        ) from error


def operation_rate(text: str) -> "ThrottleDevice":
    """Reads ``--device-read-iops path:number`` and its like, in operations a second."""
    path, rate = _split(text)
    number = decimal(rate, 20)
    if number is None or number >= 1 << 64:
        raise InvalidArgumentError(
            f"invalid rate for device: {text}. The correct format is "
            "<device-path>:<number>. Number must be a positive integer"
        )
    return {"Path": path, "Rate": number}


def _split(text: str) -> tuple[str, str]:
    path, colon, value = text.partition(":")
    if not colon or not path:
        raise InvalidArgumentError(f"bad format: {text}")
    if not path.startswith("/dev/"):
        raise InvalidArgumentError(f"bad format for device path: {text}")
    return path, value
