"""Which OCI runtimes run containers: ketch's own, and others that are installed."""

import json
import os

from ketch.engine import configuration_file
from ketch.errors import InvalidArgumentError
from ketch.spec import runtime_names
from ketch.spec.runtime_names import OWN

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ketch.engine.settings import Settings
    from ketch.spec.container import Request

# Where a runtime is looked for besides PATH, which a service or a cron job may have short.
_DIRECTORIES = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")


def configured(settings: "Settings") -> "dict[str, dict[str, Any]]":
    """Returns the runtimes of the configuration file by name: ``path`` and ``runtimeArgs``.

    Raises:
        InvalidArgumentError: the file is malformed.
    """
    return _checked(settings, configuration_file.read(settings))


def _checked(settings: "Settings", document: "dict[str, Any]") -> "dict[str, dict[str, Any]]":
    where = f"{settings.configuration_path}: runtimes"
    found: dict[str, dict[str, Any]] = document.get("runtimes", {})
    if not isinstance(found, dict):
        raise InvalidArgumentError(f"{where}: not an object", 'as {"runsc": {"path": "runsc"}}')
    for name, one in found.items():
        if name in OWN:
            raise InvalidArgumentError(
                f"{where}: runtime name '{name}' is reserved", "it is ketch's own: take another"
            )
        if not isinstance(one, dict) or not isinstance(one.get("path"), str) or not one["path"]:
            raise InvalidArgumentError(
                f"{where}: {name}: no path", 'as {"path": "/usr/local/bin/runsc"}'
            )
        if unknown := sorted(set(one) - {"path", "runtimeArgs"}):
            raise InvalidArgumentError(
                f"{where}: {name}: unknown key {unknown[0]}", "known are path and runtimeArgs"
            )
        arguments = one.get("runtimeArgs", [])
        if not isinstance(arguments, list) or not all(isinstance(each, str) for each in arguments):
            raise InvalidArgumentError(f"{where}: {name}: runtimeArgs: not a list of strings")
    return found


def default(settings: "Settings") -> str:
    """Returns the name of the runtime of containers for which none is named.

    Raises:
        InvalidArgumentError: the configuration file is malformed, or names one that is not there.
    """
    document = configuration_file.read(settings)
    name = document.get("default-runtime", OWN[0])
    if not isinstance(name, str):
        raise InvalidArgumentError(f"{settings.configuration_path}: default-runtime: not a name")
    others = _checked(settings, document)
    if name not in OWN and name not in others:
        raise InvalidArgumentError(
            f"{settings.configuration_path}: specified default runtime '{name}' does not exist",
            f"name one of {', '.join([*OWN, *sorted(others)])}",
        )
    return name


def resolve(settings: "Settings", name: str) -> list[str]:
    """Returns the words with which a runtime's command line begins.

    Args:
        settings: the engine's places.
        name: one of the configuration file, else a path or the name of a program.

    Raises:
        InvalidArgumentError: there is no such runtime, in Docker's words.
    """
    one = configured(settings).get(name, {"path": name})
    path: str = one["path"]
    for candidate in [path] if os.path.isabs(path) else _candidates(path):
        if os.path.isfile(candidate) and os.access(candidate, os.X_OK):
            return [candidate, *one.get("runtimeArgs", [])]
    where = f" ({path}: no such program)" if path != name else ""
    raise InvalidArgumentError(
        f"unknown or invalid runtime name: {name}{where}",
        f"{', '.join(OWN)} are ketch's own; another is named by its path, by its name in PATH, or "
        f"as {settings.configuration_path} has it",
    )


def _candidates(name: str) -> list[str]:
    if "/" in name:
        return []  # relative to a directory that whoever starts it later is not in
    directories = [*os.environ.get("PATH", "").split(":"), *_DIRECTORIES]
    return [f"{directory}/{name}" for directory in directories if os.path.isabs(directory)]


def directory_of(settings: "Settings", container_id: str) -> str:
    """Where what another runtime needs of a container lies while it runs."""
    return f"{settings.runtime_directory(container_id)}/oci"


def keep(settings: "Settings", container_id: str, words: list[str]) -> None:
    """Write down which runtime runs a container, for those who ask that for something later."""
    path = f"{directory_of(settings, container_id)}/command.json"
    with open(path, "w", encoding="utf-8") as file:
        json.dump(words, file)


def kept(settings: "Settings", container_id: str) -> list[str]:
    """Returns what ``keep`` wrote; nothing where no other runtime has to do with the container."""
    try:
        path = f"{directory_of(settings, container_id)}/command.json"
        with open(path, encoding="utf-8") as file:
            words: list[str] = json.load(file)
    except (FileNotFoundError, ValueError):
        return []
    return words


def settle(settings: "Settings", request: "Request") -> "Request":
    """Say which runtime a container is to have for which none is named.

    Raises:
        InvalidArgumentError: there is none of that name.
    """
    resources = request["HostConfig"]
    if not resources.get("Runtime"):
        name = default(settings)
        if name == OWN[0]:
            return request
        request = {**request, "HostConfig": {**resources, "Runtime": name}}
    if runtime_names.is_other(request):
        resolve(settings, request["HostConfig"]["Runtime"])
    return request
