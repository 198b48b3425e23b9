"""What ``ketch --help``, ``ketch container --help`` and the like print: the commands."""

from ketch.cli.flags import option_lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from ketch.cli.flags import Command

    Member = str | tuple[str, str]

GROUPS = {
    "builder": "Manage builds",
    "checkpoint": "Manage checkpoints",
    "completion": "Generate the autocompletion script for a shell",
    "container": "Manage containers",
    "image": "Manage images",
    "manifest": "Manage lists of images for several platforms",
    "network": "Manage networks",
    "sandbox": "Run programs that nobody has read",
    "system": "Manage ketch",
    "volume": "Manage volumes",
}
# What most people come for, in docker's order.
_COMMON = (
    "run", "exec", "ps", "build", "pull", "push", "images", "login", "logout", "search", "version",
    "info",
)  # fmt: skip
# Other spellings of commands that are listed.
ALIASES = {"list": "ls", "ps": "ls", "remove": "rm", "unmount": "umount"}
_OWN = {
    "builder du": "Show what the build cache holds",
    "builder prune": "Remove build cache",
    "checkpoint create": "Create a checkpoint from a running container",
    "checkpoint ls": "List checkpoints for a container",
    "checkpoint rm": "Remove a checkpoint",
    "completion bash": "Generate the autocompletion script for bash",
    "completion fish": "Generate the autocompletion script for fish",
    "completion zsh": "Generate the autocompletion script for zsh",
    "sandbox apply": "Take over what a sandbox did to its project",
    "sandbox diff": "Show what a sandbox did to its project",
    "sandbox exec": "Run another program in a sandbox",
    "sandbox ls": "List sandboxes",
    "sandbox rm": "Remove one or more sandboxes",
    "sandbox run": "Run a program in a sandbox",
    "container inspect": "Display detailed information on one or more containers",
    "container prune": "Remove all stopped containers",
    "image inspect": "Display detailed information on one or more images",
    "image mount": "Mount the root filesystems of images, or list those mounted",
    "image prune": "Remove unused images",
    "image umount": "Unmount the root filesystems of images",
    "manifest annotate": "Add additional information to a local image manifest",
    "manifest create": "Create a local manifest list for annotating and pushing to a registry",
    "manifest inspect": "Display an image manifest, or manifest list",
    "manifest push": "Push a manifest list to a registry",
    "manifest rm": "Delete one or more manifest lists from local storage",
    "network connect": "Connect a container to a network",
    "network create": "Create a network",
    "network disconnect": "Disconnect a container from a network",
    "network inspect": "Display detailed information on one or more networks",
    "network ls": "List networks",
    "network prune": "Remove all unused networks",
    "network rm": "Remove one or more networks",
    "system check": "Show what this machine offers to this user",
    "system df": "Show disk usage",
    "system prune": "Remove unused data",
    "system repair": "Take back what a lost or damaged database had on record",
    "system reset": "Remove everything that the engine has",
    "system start": "Start the containers that their restart policies want to run",
    "volume create": "Create a volume",
    "volume inspect": "Display detailed information on one or more volumes",
    "volume ls": "List volumes",
    "volume prune": "Remove unused local volumes",
    "volume rm": "Remove one or more volumes",
}


def whole(command: "Command", commands: "Mapping[str, tuple[str, str, str]]", columns: int) -> str:
    """Returns the program's help.

    Args:
        command: the program itself, with what may stand before a command.
        commands: those outside of groups: where each is, and what it does.
        columns: the screen's.
    """
    about = {name: what for name, (_, _, what) in commands.items()}
    others = sorted(set(about) - set(_COMMON))
    return "\n\n".join([
        f"Usage:  {command.usage}",
        command.summary,
        _section("Common Commands", ((name, about[name]) for name in _COMMON)),
        _section("Management Commands", GROUPS.items()),
        _section("Commands", ((name, about[name]) for name in others)),
        "Global Options:\n" + "\n".join(option_lines(command.flags, columns - 1)),
        "Run 'ketch COMMAND --help' for more information on a command.\n",
    ])  # fmt: skip


def text(
    group: str, members: "Mapping[str, Member]", commands: "Mapping[str, tuple[str, str, str]]"
) -> str:
    """Returns a group's help.

    Args:
        group: its name.
        members: its commands, each the name of one that stands outside of groups too, or its own.
        commands: those outside, with what they do.
    """
    return "\n\n".join([
        f"Usage:  ketch {group} COMMAND",
        GROUPS[group],
        _section("Commands", listed(group, members, commands)),
        f"Run 'ketch {group} COMMAND --help' for more information on a command.\n",
    ])  # fmt: skip


def listed(
    group: str, members: "Mapping[str, Member]", commands: "Mapping[str, tuple[str, str, str]]"
) -> list[tuple[str, str]]:
    """Returns a group's commands without other spellings, each with what it does."""
    found = []
    for name in sorted(set(members) - set(ALIASES)):
        member = members[name]
        own = _OWN.get(f"{group} {name}", "")
        found.append((name, own or commands[member][2] if isinstance(member, str) else own))
    return found


def names(
    path: str, commands: "Iterable[str]", groups: "Mapping[str, Mapping[str, Member]]"
) -> list[str]:
    """Returns all names of a command, each with the program's: those in its group first.

    Args:
        path: one of them, under which it stands in ``commands`` or in a group by itself.
        commands: those outside of groups.
        groups: the groups' commands.
    """
    first, _, second = path.partition(" ")[2].partition(" ")
    member = groups[first][second] if second else first
    found = [
        (name in ALIASES, f"ketch {group} {name}")
        for group, members in groups.items()
        if not second or group == first
        for name, other in members.items()
        if other == member
    ]
    return [name for _, name in sorted(found)] + ([path] if first in commands else [])


def _section(title: str, commands: "Iterable[tuple[str, str]]") -> str:
    return f"{title}:\n" + "\n".join(f"  {name:<11} {what}".rstrip() for name, what in commands)
