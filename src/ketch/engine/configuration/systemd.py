"""Whether a container's program is systemd, which needs more than others as PID 1. Pure.

What it needs is podman's to know: file systems in memory, its own control groups writable, to be
told that it is in a container, and SIGRTMIN+3 to stop. Source: podman-run(1) ``--systemd``;
podman's ``pkg/specgen/generate/container_create.go``; systemd's CONTAINER_INTERFACE.
"""

import os.path

from ketch.errors import InvalidArgumentError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ketch.engine.host import Host
    from ketch.spec.container import Config, HostConfig

MODES = ("", "auto", "true", "always", "false")
STOP_SIGNAL = "SIGRTMIN+3"
"""On which systemd halts: systemd(1)."""

_INITS = {"/sbin/init", "/usr/sbin/init", "/usr/local/sbin/init"}


def settle(
    config: "Config", resources: "HostConfig", host: "Host", arguments: "Sequence[str]"
) -> list[str]:
    """Decides it, and completes the configuration accordingly.

    Args:
        config: the container's own part, merged with the image's.
        resources: what it asks of the host.
        host: facts about the machine.
        arguments: what the container runs.

    Returns:
        Warnings for the user.

    Raises:
        InvalidArgumentError: there is no such mode, or it is asked for beside what rules it out.
    """
    mode = (resources.get("Systemd") or "auto").lower()
    if mode not in MODES:
        raise InvalidArgumentError(
            f"invalid systemd mode: {mode}", f"one of {', '.join(filter(None, MODES))}"
        )
    elsewhere = "Init" if resources.get("Init") else "PidMode" if resources.get("PidMode") else ""
    if mode == "always" and elsewhere:
        raise InvalidArgumentError(
            f"conflicting options: Systemd and {elsewhere}", "systemd has to be PID 1"
        )
    if mode == "false" or (mode != "always" and (elsewhere or not is_systemd(arguments))):
        return []
    if mode != "always" and not host.bounds_own_cgroup:
        # Whoever makes an image is not to lift limits by what it calls its program.
        return [
            "The program looks like systemd, which has to write to its control groups, and could "
            "lift its limits there: cgroup2 is mounted without nsdelegate. --systemd=always lets "
            "it."
        ]
    config["SystemdMode"] = True
    if not config.get("StopSignal"):
        config["StopSignal"] = STOP_SIGNAL
    if not resources.get("CgroupnsMode"):
        resources["CgroupnsMode"] = "private"
    return []


def is_systemd(arguments: "Sequence[str]") -> bool:
    """Tells whether that is what a command line runs, be it by the shell of an image's own form."""
    if len(arguments) > 2 and list(arguments[:2]) == ["/bin/sh", "-c"]:
        arguments = arguments[2:]
    return bool(arguments) and (
        arguments[0] in _INITS or os.path.basename(arguments[0]) == "systemd"
    )
