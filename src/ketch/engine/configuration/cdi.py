"""Devices by the Container Device Interface: ``--device vendor.com/class=name``.

A vendor's specification, a JSON or YAML file, says what a device comes with: nodes, mounts,
variables, hooks. Source: cncf-tags/container-device-interface, SPEC.md 1.0.
"""

import json
import os

from ketch.errors import InvalidArgumentError, UnavailableError, UnsupportedError, in_words
from ketch.spec.values import quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from ketch.spec.container import DeviceRequest

DIRECTORIES = ("/etc/cdi", "/var/run/cdi")
"""Later ones take precedence."""

_FILE_BYTES_MAX = 16 << 20
_CLASS = "org.mobyproject.buildkit.device.class"


# What --gpus asks for; the first vendor whose specification is there serves it.
_GPUS = ("nvidia.com/gpu", "amd.com/gpu", "intel.com/gpu")


def names(
    requests: "Iterable[DeviceRequest]", directories: "Iterable[str]" = DIRECTORIES
) -> list[str]:
    """Returns the qualified names of the devices that are asked for, GPUs by number among them.

    Raises:
        UnsupportedError: nothing here hands out what is asked for.
        UnavailableError: a specification cannot be read.
    """
    found: list[str] = []
    for wanted in requests:
        if wanted.get("Driver") == "cdi":
            found += wanted.get("DeviceIDs") or ()
            continue
        capabilities = wanted.get("Capabilities") or []
        driver = wanted.get("Driver", "")
        kinds = {document.get("kind") for document in _specifications(directories)}
        kind = next((kind for kind in _GPUS if kind in kinds), None)
        gpus = any("gpu" in each for each in capabilities)
        if not gpus or kind is None or driver not in {"", kind.partition(".")[0]}:
            sets = " ".join(f"[{' '.join(each)}]" for each in capabilities)
            raise UnsupportedError(
                f"could not select device driver {quoted(driver)} with capabilities: [{sets}]",
                f"ketch takes GPUs from a CDI specification in {' or '.join(DIRECTORIES)}, such as "
                "nvidia-ctk cdi generate writes",
            )
        # One more than there are fails like any number more, by its name.
        there = sum(
            len(document.get("devices") or ())
            for document in _specifications(directories) if document.get("kind") == kind
        )  # fmt: skip
        count = min(wanted.get("Count", 0), there + 1)
        devices = wanted.get("DeviceIDs") or (
            ["all"] if count < 0 else [str(number) for number in range(count)]
        )
        found += [f"{kind}={device}" for device in devices]
    return found


def matching(
    wanted: "Iterable[tuple[str, bool]]", directories: "Iterable[str]" = DIRECTORIES
) -> list[str]:
    """Returns the qualified names of the devices that a build's step asks for.

    ``kind`` alone is the first of its devices, ``kind=*`` all of them, and a name that no device
    has those of that class, by BuildKit's annotation (solver/llbsolver/cdidevices).

    Args:
        wanted: names, each with whether the device must be there.
        directories: where specifications are.

    Raises:
        InvalidArgumentError: one that must be there is not.
        UnavailableError: a specification cannot be read.
    """
    found: dict[str, None] = {}
    documents = list(_specifications(directories))
    for name, required in wanted:
        kind, _, device = name.partition("=")
        there = [
            (str(entry.get("name")),
             {**(document.get("annotations") or {}), **(entry.get("annotations") or {})})
            for document in documents if document.get("kind") == kind
            for entry in document.get("devices") or ()
        ]  # fmt: skip
        names = [own for own, _ in there]
        if device:
            names = [own for own in names if device in {own, "*"}] or [
                own for own, annotations in there if annotations.get(_CLASS) == device
            ]
        else:
            names = names[:1]
        if required and not names:
            raise InvalidArgumentError(
                f"required device {quoted(name)} is not registered",
                f"a specification of it belongs in {' or '.join(directories)}",
            )
        found.update(dict.fromkeys(f"{kind}={own}" for own in names))
    return list(found)


def edits(
    names: "Iterable[str]", directories: "Iterable[str]" = DIRECTORIES
) -> "list[dict[str, Any]]":
    """Returns what devices come with: CDI's ``containerEdits``, in the order to apply them.

    Args:
        names: the devices' qualified names.
        directories: where specifications are.

    Raises:
        InvalidArgumentError: no specification has such a device.
        UnavailableError: a specification cannot be read.
    """
    found: list[dict[str, Any]] = []
    specifications = list(_specifications(directories))
    missing = []
    applied: set[int] = set()
    for name in names:
        kind, _, device_name = name.partition("=")
        entry = None
        for number, document in enumerate(specifications):
            if document.get("kind") != kind:
                continue
            for device in document.get("devices") or ():
                if device.get("name") == device_name:
                    entry = (number, document, device)
        if entry is None:
            missing.append(name)
            continue
        number, document, device = entry
        if number not in applied:  # what all devices of one specification share
            applied.add(number)
            found.append(document.get("containerEdits") or {})
        found.append(device.get("containerEdits") or {})
    if missing:
        raise InvalidArgumentError(
            "CDI device injection failed: unresolvable CDI devices " + ", ".join(missing),
            f"a specification of them belongs in {' or '.join(directories)}",
        )
    return found


def _specifications(directories: "Iterable[str]") -> "Iterator[dict[str, Any]]":
    for directory in directories:
        try:
            names = sorted(os.listdir(directory))
        except OSError:
            continue
        for name in names:
            if name.endswith((".json", ".yaml", ".yml")):
                yield _read(os.path.join(directory, name))


def _read(path: str) -> "dict[str, Any]":
    try:
        with open(path, "rb") as file:
            text = file.read(_FILE_BYTES_MAX)
        document = json.loads(text) if path.endswith(".json") else _yaml(path, text)
    except (OSError, ValueError) as error:
        raise UnavailableError(
            f"CDI specification {path}: {in_words(error, path)}", "mend or remove it"
        ) from error
    if not isinstance(document, dict):
        raise UnavailableError(f"CDI specification {path}: not an object", "mend or remove it")
    return document


def _yaml(path: str, text: bytes) -> object:
    try:
        import yaml  # type: ignore[import-untyped]  # noqa: PLC0415 - not everyone has it
    except ImportError as error:
        raise UnavailableError(
            f"CDI specification {path}: reading YAML needs PyYAML",
            "install it, or write the specification as JSON",
        ) from error
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
