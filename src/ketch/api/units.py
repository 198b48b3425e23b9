"""The unit files for systemd that ``ketch serve --install-unit`` writes."""

import os
import subprocess
from typing import TYPE_CHECKING

from ketch.api.listeners import group_id
from ketch.errors import PermissionDeniedError, UnavailableError

if TYPE_CHECKING:
    from ketch.engine.settings import Settings

DIRECTORY = "/etc/systemd/system"
IDLE_SECONDS = 300

_SOCKET = """\
[Unit]
Description=ketch, the Docker Engine API's socket

[Socket]
ListenStream=/run/ketch.sock
SocketMode=0660
SocketUser=root
SocketGroup={group}

[Install]
WantedBy=sockets.target
"""

# KillMode=process: containers, and the monitors that watch them, outlive the server.
_SERVICE = """\
[Unit]
Description=ketch, the Docker Engine API
Requires=ketch.socket
After=ketch.socket network-online.target
Wants=network-online.target

[Service]
ExecStart={command} serve --idle-timeout {idle_seconds}
KillMode=process
Delegate=yes
Restart=on-failure
LimitNOFILE=1048576
TasksMax=infinity

[Install]
Also=ketch.socket
"""

_BOOT = """\
[Unit]
Description=ketch, containers that are to run after a boot
After=network-online.target
Wants=network-online.target

[Service]
Type=oneshot
ExecStart={command} system start
RemainAfterExit=yes
KillMode=process
Delegate=yes
TasksMax=infinity

[Install]
WantedBy=multi-user.target
"""


def files(settings: "Settings", program: str, group: str) -> dict[str, str]:
    """Returns the units' texts by name.

    Args:
        settings: the engine's places.
        program: the command that the units run.
        group: which group may use the socket.
    """
    words = [os.path.abspath(program)]
    for name, value, usual in (
        ("--root", settings.root, "/var/lib/ketch"), ("--state", settings.state, "/run/ketch")
    ):  # fmt: skip
        if value != usual:
            words += [name, value]
    # systemd.unit(5): % begins a specifier, and a word with spaces is quoted.
    command = " ".join(f'"{word}"' if " " in word else word for word in words).replace("%", "%%")
    return {
        "ketch.socket": _SOCKET.format(group=group),
        "ketch.service": _SERVICE.format(command=command, idle_seconds=IDLE_SECONDS),
        "ketch-restart.service": _BOOT.format(command=command),
    }


def install(
    settings: "Settings", program: str, group: str, directory: str = DIRECTORY
) -> list[str]:
    """Write the units, and make the group where it is missing.

    Returns:
        What to do next, line by line.

    Raises:
        PermissionDeniedError: the caller may not.
        UnavailableError: the directory is not there, or the group cannot be made.
    """
    done = []
    try:
        for name, text in files(settings, program, group).items():
            path = os.path.join(directory, name)
            with open(f"{path}.new", "w", encoding="utf-8") as file:
                file.write(text)
            os.replace(f"{path}.new", path)
            done.append(f"wrote {path}")
    except PermissionError as error:
        raise PermissionDeniedError(f"{directory}: permission denied", "run it as root") from error
    except OSError as error:
        raise UnavailableError(f"{directory}: {error.strerror}") from error
    if group_id(group) is None:
        made = subprocess.run(
            ["groupadd", "--system", group], check=False, capture_output=True, text=True
        )
        if made.returncode:
            raise UnavailableError(f"cannot make group {group}: {made.stderr.strip()}")
        done.append(f"made group {group}: its members are root on this host")
    return [
        *done,
        "now: systemctl daemon-reload && systemctl enable --now ketch.socket ketch-restart.service",
    ]
