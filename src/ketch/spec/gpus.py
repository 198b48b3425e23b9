"""``--gpus``: devices that a driver, not a path, is asked for."""

from ketch.errors import InvalidArgumentError
from ketch.spec.values import fields, integer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.spec.container import DeviceRequest

_ALL = -1


def request(text: str) -> "DeviceRequest":
    """Reads ``all``, a number, or ``device=...,driver=...,capabilities=...,options=...``."""
    found: DeviceRequest = {
        "Driver": "", "Count": 0, "DeviceIDs": None, "Capabilities": [], "Options": {},
    }  # fmt: skip
    capabilities: list[str] = []
    seen: set[str] = set()
    for field in fields(text):
        key, equals, value = field.partition("=")
        if not equals:
            key, value = "count", field
        if key in seen:
            raise InvalidArgumentError(f"gpu request key '{key}' can be specified only once")
        seen.add(key)
        if key == "driver":
            found["Driver"] = value
        elif key == "count":
            found["Count"] = _count(value)
        elif key == "device":
            found["DeviceIDs"] = value.split(",")
        elif key == "capabilities":
            capabilities = value.split(",")
        elif key == "options":
            pairs = (pair.partition("=") for pair in value.split(","))
            found["Options"] = {name: option for name, _, option in pairs}
        else:
            raise InvalidArgumentError(f"unexpected key '{key}' in '{field}'")
    if "count" not in seen and found["DeviceIDs"] is None:
        found["Count"] = 1
    found["Capabilities"] = [[*capabilities, *([] if "gpu" in capabilities else ["gpu"])]]
    return found


def _count(text: str) -> int:
    if text == "all":
        return _ALL
    try:
        return integer(text)
    except InvalidArgumentError as error:
        raise InvalidArgumentError(
            f'invalid count ({text}): value must be either "all" or an integer: invalid syntax'
        ) from error
