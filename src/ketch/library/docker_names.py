"""What docker-py calls a container's options, in the forms that its users give them.

Where a name is docker-py's, its value means what it means there: ``ports={80: 8080}``,
``volumes={"/data": {"bind": "/data", "mode": "ro"}}``, ``ulimits=[Ulimit(...)]``. Each becomes the
command line's option that says the same, or, where no option can say it, fields of the API's
request. What docker-py knows and Linux or ketch does not have is an unknown keyword.

Source: docker-py 7, docker/models/containers.py and docker/types/containers.py.
"""

import shlex
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from ketch.errors import InvalidArgumentError
from ketch.spec import container, hosts, ports

if TYPE_CHECKING:
    from collections.abc import Callable

# The same by another name.
ALIASES = {
    "annotations": "annotation", "auto_remove": "rm", "build_args": "build-arg",
    "buildargs": "build-arg", "contexts": "build-context",
    "device_cgroup_rules": "device-cgroup-rule", "devices": "device", "dns_opt": "dns-option",
    "extra_hosts": "add-host", "forcerm": "force-rm", "ipc_mode": "ipc", "labels": "label",
    "links": "link", "mem_limit": "memory", "mem_reservation": "memory-reservation",
    "mem_swappiness": "memory-swappiness", "memswap_limit": "memory-swap", "nano_cpus": "cpus",
    "network_mode": "network", "nocache": "no-cache", "pid_mode": "pid",
    "publish_all_ports": "publish-all", "remove": "rm", "restart_policy": "restart",
    "shmsize": "shm-size", "stdin_open": "interactive", "sysctls": "sysctl", "ulimits": "ulimit",
    "userns_mode": "userns", "uts_mode": "uts", "volumes": "volume", "working_dir": "workdir",
}  # fmt: skip


def texts(value: object) -> list[str]:
    """Returns one text, or several, as a list.

    Raises:
        InvalidArgumentError: it is neither.
    """
    if isinstance(value, (str, bytes)):
        return [_text(value)]
    if isinstance(value, Mapping) or not isinstance(value, Iterable):
        raise InvalidArgumentError("a text or an iterable of texts is wanted")
    return [_text(item) for item in value]


def paired(value: object, separator: str) -> list[str]:
    """Returns what several texts, or a mapping's or pairs' names and values, say as texts.

    Raises:
        InvalidArgumentError: they are something else.
    """
    if isinstance(value, Mapping):
        return [_pair(name, item, separator) for name, item in value.items()]
    if isinstance(value, (str, bytes)):
        return [_text(value)]
    if not isinstance(value, Iterable):
        raise InvalidArgumentError("an iterable of texts, or a mapping, is wanted")
    return [
        _pair(item[0], item[1], separator) if isinstance(item, tuple) and len(item) == 2
        else _text(item) for item in value
    ]  # fmt: skip


def words(value: object) -> list[str]:
    """Returns a command's words; a text is split at its blanks, as a shell does it."""
    if not isinstance(value, str):
        return [] if value is None else texts(value)
    try:
        return shlex.split(value)
    except ValueError as error:
        raise InvalidArgumentError(f"command {value!r}: {str(error).lower()}") from error


def lines(value: object) -> list[str]:
    """Returns a file's lines, whether it is given as one text or line by line."""
    return value.splitlines() if isinstance(value, str) else texts(value)


def _pair(name: object, value: object, separator: str) -> str:
    if value is None or (value == "" and separator == ":"):
        return _text(name)
    return f"{_text(name)}{separator}{_text(value)}"


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape")
    if isinstance(value, (str, int, float)):
        return str(value)
    raise InvalidArgumentError(f"a text is wanted, and not {value!r}")


def _fields(value: object, *known: str) -> dict[str, Any]:
    """Returns what a mapping has under names that may be spelt as the API or as Python does."""
    if not isinstance(value, Mapping):
        raise InvalidArgumentError(f"a mapping is wanted, and not {value!r}")
    spelt = {name.replace("_", "").lower(): name for name in known}
    found = {}
    for name, item in value.items():
        known_as = spelt.get(_text(name).replace("_", "").lower())
        if known_as is None:
            raise InvalidArgumentError(f"there is no {name!r} in it: {', '.join(known)}")
        if item is not None:
            found[known_as] = item
    return found


def _items(value: object) -> list[object]:
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        raise InvalidArgumentError("a list is wanted")
    return list(value)


# What becomes an option's texts


def _volumes(value: object) -> list[str]:
    if not isinstance(value, Mapping):
        return texts(value)
    return [_volume(source, place) for source, place in value.items()]


def _volume(source: object, place: object) -> str:
    if not isinstance(place, Mapping):
        return f"{_text(source)}:{_text(place)}"
    known = _fields(place, "bind", "mode", "ro", "propagation")
    if "bind" not in known:
        raise InvalidArgumentError(f"{source!r} has no 'bind': where it is to be")
    if "ro" in known and "mode" in known:
        raise InvalidArgumentError(f"{source!r} has both 'ro' and 'mode'")
    modes = [_text(known.get("mode", "ro" if known.get("ro") else "rw"))]
    modes += [_text(known["propagation"])] if "propagation" in known else []
    return ":".join([_text(source), _text(known["bind"]), ",".join(filter(None, modes))])


def _devices(value: object) -> list[str]:
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        return paired(value, ":")
    found = []
    for item in value:
        if isinstance(item, Mapping):
            known = _fields(item, "PathOnHost", "PathInContainer", "CgroupPermissions")
            here = _text(known.get("PathOnHost", ""))
            there = _text(known.get("PathInContainer", here))
            found.append(":".join([here, there, _text(known.get("CgroupPermissions", "rwm"))]))
        else:
            found.append(_text(item))
    return found


def _of_devices(number: str) -> "Callable[[object], list[str]]":
    """The form of limits of devices: ``[{"Path": "/dev/sda", "Rate": 1000}]``."""

    def read(value: object) -> list[str]:
        if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
            return paired(value, ":")
        found = []
        for item in value:
            if not isinstance(item, Mapping):
                found.append(_text(item))
                continue
            known = _fields(item, "Path", number)
            found.append(f"{_text(known.get('Path', ''))}:{_text(known.get(number, ''))}")
        return found

    return read


def _ulimits(value: object) -> list[str]:
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        return paired(value, "=")
    found = []
    for item in value:
        if not isinstance(item, Mapping):
            found.append(_text(item))
            continue
        known = _fields(item, "Name", "Soft", "Hard")
        limits = [_text(known[name]) for name in ("Soft", "Hard") if name in known]
        found.append(f"{_text(known.get('Name', ''))}={':'.join(limits)}")
    return found


def _restart_policy(value: object) -> object:
    if not isinstance(value, Mapping):
        return value
    known = _fields(value, "Name", "MaximumRetryCount")
    retries = known.get("MaximumRetryCount")
    return _text(known.get("Name", "")) + (f":{_text(retries)}" if retries else "")


def _nano_cpus(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidArgumentError("an integer is wanted")
    return format(Decimal(value) / 10**9, "f")


def _volumes_from(value: object) -> list[str]:
    return value.split(",") if isinstance(value, str) else texts(value)


FORMS: "dict[str, Callable[[object], Any]]" = {
    "blkio_weight_device": _of_devices("Weight"), "device": _devices, "devices": _devices,
    "device_read_bps": _of_devices("Rate"), "device_read_iops": _of_devices("Rate"),
    "device_write_bps": _of_devices("Rate"), "device_write_iops": _of_devices("Rate"),
    "nano_cpus": _nano_cpus, "restart_policy": _restart_policy, "ulimits": _ulimits,
    "volumes": _volumes, "volumes_from": _volumes_from,
}  # fmt: skip
"""What a keyword's value is as that of the option with its name, or of that in ``ALIASES``."""


# What becomes fields of the request


def _ports(value: object) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise InvalidArgumentError(
            "a mapping of the container's ports to the host's is wanted",
            "publish= takes what --publish does",
        )
    bindings: dict[str, list[dict[str, str]]] = {}
    for port, where in value.items():
        number, protocol = ports.parse(_text(port))
        places = where if isinstance(where, list) else [where]
        found = bindings.setdefault(f"{number}/{protocol}", [])
        found.extend(map(_binding, places))
    exposed: dict[str, object] = {port: {} for port in bindings}
    return {"Config.ExposedPorts": exposed, "HostConfig.PortBindings": bindings}


def _binding(place: object) -> dict[str, str]:
    address, port = "", place
    if isinstance(place, Mapping):
        known = _fields(place, "HostIp", "HostPort")
        address, port = known.get("HostIp", ""), known.get("HostPort")
    elif isinstance(place, tuple) and len(place) == 2:
        address, port = place
    elif isinstance(place, tuple) and len(place) == 1:
        address, port = (place[0], None) if isinstance(place[0], str) else ("", place[0])
    text = "" if port is None else _text(port)
    ports.host_range(text)
    return {"HostIp": hosts.address(_text(address)) if address else "", "HostPort": text}


def _healthcheck(value: object) -> dict[str, Any]:
    known = _fields(value, "Test", "Interval", "Timeout", "Retries", "StartPeriod", "StartInterval")
    test = known.pop("Test", [])
    for name, number in known.items():
        if isinstance(number, bool) or not isinstance(number, int):
            raise InvalidArgumentError(f"{name}: an integer is wanted, of nanoseconds for a time")
    check = ["CMD-SHELL", test] if isinstance(test, str) else texts(test)
    return {"Config.Healthcheck": {"Test": check, **known}}


def _log_config(value: object) -> dict[str, Any]:
    known = _fields(value, "Type", "Config")
    options = _fields_of_texts(known.get("Config", {}))
    return {"HostConfig.LogConfig": {"Type": _text(known.get("Type", "")), "Config": options}}


def _fields_of_texts(value: object) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise InvalidArgumentError(f"a mapping is wanted, and not {value!r}")
    return {_text(name): _text(item) for name, item in value.items()}


def _device_requests(value: object) -> dict[str, Any]:
    made = []
    for item in _items(value):
        known = _fields(item, "Driver", "Count", "DeviceIDs", "Capabilities", "Options")
        if isinstance(count := known.get("Count", 0), bool) or not isinstance(count, int):
            raise InvalidArgumentError("Count: an integer is wanted")
        made.append({
            "Driver": _text(known.get("Driver", "")), "Count": count,
            "DeviceIDs": texts(known.get("DeviceIDs", ())),
            "Capabilities": [texts(one) for one in _items(known.get("Capabilities", ()))],
            "Options": _fields_of_texts(known.get("Options", {})),
        })  # fmt: skip
    return {"HostConfig.DeviceRequests": made}


def _mounts(value: object) -> dict[str, Any]:
    known = tuple(container.Mount.__annotations__)
    return {"HostConfig.Mounts": [_fields(item, *known) for item in _items(value)]}


def _entrypoint(value: object) -> dict[str, Any]:
    # An empty text takes the image's away, as on the command line; an empty list says nothing.
    return {"Config.Entrypoint": [""] if value == "" else words(value)}


def _networking(value: object) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise InvalidArgumentError("a mapping of networks to what is asked of each is wanted")
    known = tuple(container.EndpointSettings.__annotations__)
    wanted = {_text(name): _fields(item or {}, *known) for name, item in value.items()}
    return {"NetworkingConfig.EndpointsConfig": wanted}


def _environment(value: object) -> dict[str, Any]:
    return {"Config.Env": paired(value, "=")}


def _disabled(value: object) -> dict[str, Any]:
    if not isinstance(value, bool):
        raise InvalidArgumentError("True or False is wanted")
    return {"Config.NetworkDisabled": value}


FIELDS: "dict[str, Callable[[object], dict[str, Any]]]" = {
    "device_requests": _device_requests, "entrypoint": _entrypoint, "environment": _environment,
    "healthcheck": _healthcheck, "log_config": _log_config, "mounts": _mounts,
    "network_disabled": _disabled, "networking_config": _networking, "ports": _ports,
}  # fmt: skip
"""What a keyword's value says as fields of the request, by their section and name."""
