"""The unit files for systemd that ``ketch serve --install-unit`` writes."""

import os
from typing import TYPE_CHECKING

from ketch.api.listeners import group_id
from ketch.dataclass import dataclass
from ketch.engine.home import offers, places
from ketch.errors import PermissionDeniedError, UnavailableError
from ketch.linux import programs

if TYPE_CHECKING:
    from ketch.engine.settings import Settings

DIRECTORY = "/etc/systemd/system"
IDLE_SECONDS = 300

_SOCKET = """\
[Unit]
Description=ketch, the Docker Engine API's socket

[Socket]
{socket}

[Install]
WantedBy=sockets.target
"""

# KillMode=process: containers, and the monitors that watch them, outlive the server.
_SERVICE = """\
[Unit]
Description=ketch, the Docker Engine API
Requires=ketch.socket
After=ketch.socket
{ordering}
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
{ordering}
[Service]
Type=oneshot
ExecStart={command} system start
RemainAfterExit=yes
KillMode=process
Delegate=yes
TasksMax=infinity

[Install]
WantedBy={target}
"""


@dataclass
class Manager:
    """Which systemd the units are for: the machine's, or an ordinary user's own.

    Args:
        directory: where its units are.
        usual: root and state directory that a command has without being told.
        socket: the units' words on where the API listens, and for whom.
        ordering: what it waits for before it starts anything, in a unit's words.
        target: by which it starts what is to run from the beginning.
        command: how it is told of new units.
    """

    directory: str
    usual: tuple[str, str]
    socket: str
    ordering: str
    target: str
    command: str


def manager(settings: "Settings", group: str) -> Manager:
    """Returns the systemd of an engine.

    Args:
        settings: the engine's places.
        group: which group may use the socket, beside root.
    """
    if not settings.home:
        owner = f"SocketMode=0660\nSocketUser=root\nSocketGroup={group}"
        return Manager(
            DIRECTORY,
            ("/var/lib/ketch", "/run/ketch"),
            f"ListenStream=/run/ketch.sock\n{owner}",
            "After=network-online.target\nWants=network-online.target\n",
            "multi-user.target",
            "systemctl",
        )
    # %t is the user's XDG_RUNTIME_DIR. What the machine's systemd has, a user's cannot wait for.
    return Manager(
        f"{os.path.dirname(settings.home)}/systemd/user",
        (places.root(), places.state()),
        "ListenStream=%t/ketch.sock\nSocketMode=0600",
        "",
        "default.target",
        "systemctl --user",
    )


def files(settings: "Settings", program: str, group: str) -> dict[str, str]:
    """Returns the units' texts by name.

    Args:
        settings: the engine's places.
        program: the command that the units run: its path, or a name that systemd looks for where
            distributions have programs.
        group: which group may use the socket, beside root.
    """
    systemd = manager(settings, group)
    words = [program]
    for name, value, usual in zip(
        ("--root", "--state"), (settings.root, settings.state), systemd.usual, strict=True
    ):
        if value != usual:
            words += [name, value]
    # systemd.unit(5): % begins a specifier, and a word with spaces is quoted.
    command = " ".join(f'"{word}"' if " " in word else word for word in words).replace("%", "%%")
    facts = {
        "command": command, "idle_seconds": IDLE_SECONDS, "socket": systemd.socket,
        "ordering": systemd.ordering, "target": systemd.target,
    }  # fmt: skip
    return {
        "ketch.socket": _SOCKET.format(**facts),
        "ketch.service": _SERVICE.format(**facts),
        "ketch-restart.service": _BOOT.format(**facts),
    }


def install(settings: "Settings", program: str, group: str) -> list[str]:
    """Write the units, and for root make the group where it is missing.

    Returns:
        What to do next, line by line.

    Raises:
        PermissionDeniedError: the caller may not.
        UnavailableError: the directory is not there, or the group cannot be made.
    """
    systemd = manager(settings, group)
    done = []
    try:
        if settings.home:
            os.makedirs(systemd.directory, exist_ok=True)
        for name, text in files(settings, os.path.abspath(program), group).items():
            path = os.path.join(systemd.directory, name)
            with open(f"{path}.new", "w", encoding="utf-8") as file:
                file.write(text)
            os.replace(f"{path}.new", path)
            done.append(f"wrote {path}")
    except PermissionError as error:
        raise PermissionDeniedError(
            f"{systemd.directory}: permission denied", "run it as root"
        ) from error
    except OSError as error:
        raise UnavailableError(f"{systemd.directory}: {error.strerror}") from error
    if not settings.home and group_id(group) is None:
        made = programs.ask(["groupadd", "--system", group])
        if made.returncode:
            raise UnavailableError(f"cannot make group {group}: {made.stderr.strip()}")
        done.append(f"made group {group}: its members are root on this host")
    units = "ketch.socket ketch-restart.service"
    done.append(f"now: {systemd.command} daemon-reload && {systemd.command} enable --now {units}")
    if settings.home:
        lingering = offers.lingering()
        if lingering.state == offers.NO:
            done.append(
                f"{lingering.detail}, and the units with them; to keep them: {lingering.remedy}"
            )
    return done
