"""Changes to an image's configuration, written as Dockerfile instructions.

``ketch import --change`` and ``commit --change`` take them. They are read as Dockerfiles are
(``ketch.spec.dockerfile``). Which instructions there are, and what they do, is as in Docker's
engine: github.com/moby/moby, daemon/builder/dockerfile: builder.go, dispatchers.go.
"""

import posixpath

from ketch.errors import InvalidArgumentError
from ketch.spec import signals
from ketch.spec.dockerfile import exposing, instructions, parsing, reading
from ketch.spec.dockerfile.expansion import Expander

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

    from ketch.spec.image import ContainerConfig, Healthcheck

SHELL = ("/bin/sh", "-c")

NAMES = (
    "CMD", "ENTRYPOINT", "ENV", "EXPOSE", "HEALTHCHECK", "LABEL", "ONBUILD", "STOPSIGNAL", "USER",
    "VOLUME", "WORKDIR",
)  # fmt: skip
"""The instructions that there are."""


def apply(config: "ContainerConfig", changes: "Iterable[str]") -> None:
    """Apply changes to a configuration, in place.

    Args:
        config: what containers of the image run with.
        changes: Dockerfile instructions, one or more lines each.

    Raises:
        InvalidArgumentError: one is malformed, or no instruction that changes a configuration.
    """
    lines = [*changes]
    if not lines:
        return
    text = "\n".join(lines).encode(errors="surrogateescape")
    dockerfile = parsing.parse(text, "changes")
    for node in dockerfile.nodes:
        if node.keyword.upper() not in NAMES:
            raise InvalidArgumentError(
                f"{node.keyword.lower()} is not a valid change command",
                f"these are: {', '.join(NAMES)}",
            )
    # All are read before the first is applied.
    command_given = False
    for instruction in [*map(reading.read, dockerfile.nodes)]:
        environment = dict(entry.partition("=")[::2] for entry in config.get("Env") or ())
        expanded = instructions.expand(instruction, Expander(environment, dockerfile.escape))
        command_given = command_given or isinstance(expanded, instructions.Cmd)
        if isinstance(expanded, instructions.Entrypoint) and not command_given:
            config.pop("Cmd", None)  # the arguments were meant for another program
        _CHANGES[type(expanded)](config, expanded)


def _words(config: "ContainerConfig", command: instructions.Command) -> list[str]:
    shell = [*(config.get("Shell") or SHELL)] if command.shell else []
    return [*shell, *command.words]


def _cmd(config: "ContainerConfig", this: instructions.Cmd) -> None:
    config["Cmd"] = _words(config, this.command)


def _entrypoint(config: "ContainerConfig", this: instructions.Entrypoint) -> None:
    if this.command.words:
        config["Entrypoint"] = _words(config, this.command)
    else:
        config.pop("Entrypoint", None)


def _env(config: "ContainerConfig", this: instructions.Env) -> None:
    environment = {entry.partition("=")[0]: entry for entry in config.get("Env") or ()}
    environment |= {pair.name: str(pair) for pair in this.pairs}
    config["Env"] = [*environment.values()]


def _label(config: "ContainerConfig", this: instructions.Label) -> None:
    labels = {pair.name: pair.value for pair in this.pairs}
    config["Labels"] = {**(config.get("Labels") or {}), **labels}


def _expose(config: "ContainerConfig", this: instructions.Expose) -> None:
    ports = dict(config.get("ExposedPorts") or {})
    for each in exposing.read(this.ports):
        ports |= {port: {} for port in each.ports}
    config["ExposedPorts"] = ports


def _volume(config: "ContainerConfig", this: instructions.Volume) -> None:
    config["Volumes"] = {**(config.get("Volumes") or {}), **{path: {} for path in this.paths}}


def _user(config: "ContainerConfig", this: instructions.User) -> None:
    # An empty one takes the user of the image below away.
    config["User"] = this.user


def _workdir(config: "ContainerConfig", this: instructions.Workdir) -> None:
    if not this.path:
        raise InvalidArgumentError(f"WORKDIR: {this.text!r} names no directory")
    path = posixpath.join("/", config.get("WorkingDir") or "/", this.path)
    config["WorkingDir"] = "/" + posixpath.normpath(path).lstrip("/")


def _stop_signal(config: "ContainerConfig", this: instructions.StopSignal) -> None:
    signals.number(this.signal)
    config["StopSignal"] = this.signal


def _on_build(config: "ContainerConfig", this: instructions.OnBuild) -> None:
    config["OnBuild"] = [*(config.get("OnBuild") or ()), this.trigger]


def _healthcheck(config: "ContainerConfig", this: instructions.Healthcheck) -> None:
    check: Healthcheck = {"Test": [*this.test]}
    if this.interval_ns:
        check["Interval"] = this.interval_ns
    if this.timeout_ns:
        check["Timeout"] = this.timeout_ns
    if this.start_period_ns:
        check["StartPeriod"] = this.start_period_ns
    if this.start_interval_ns:
        check["StartInterval"] = this.start_interval_ns
    if this.retries:
        check["Retries"] = this.retries
    config["Healthcheck"] = check


_CHANGES: "dict[type, Callable[[ContainerConfig, Any], None]]" = {
    instructions.Cmd: _cmd,
    instructions.Entrypoint: _entrypoint,
    instructions.Env: _env,
    instructions.Expose: _expose,
    instructions.Healthcheck: _healthcheck,
    instructions.Label: _label,
    instructions.OnBuild: _on_build,
    instructions.StopSignal: _stop_signal,
    instructions.User: _user,
    instructions.Volume: _volume,
    instructions.Workdir: _workdir,
}
