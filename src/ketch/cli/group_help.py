"""What ``ketch container --help`` and the like print."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

GROUPS = {
    "checkpoint": "Manage checkpoints",
    "container": "Manage containers",
    "image": "Manage images",
    "manifest": "Manage lists of images for several platforms",
    "network": "Manage networks",
    "system": "Manage ketch",
    "volume": "Manage volumes",
}
# Other spellings of commands that are listed.
_ALIASES = {"list", "ps", "remove"}
_OWN = {
    "checkpoint create": "Create a checkpoint from a running container",
    "checkpoint ls": "List checkpoints for a container",
    "checkpoint rm": "Remove a checkpoint",
    "container inspect": "Display detailed information on one or more containers",
    "container prune": "Remove all stopped containers",
    "image inspect": "Display detailed information on one or more images",
    "image prune": "Remove unused images",
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
    "system df": "Show disk usage",
    "system prune": "Remove unused data",
    "system start": "Start the containers that their restart policies want to run",
    "volume create": "Create a volume",
    "volume inspect": "Display detailed information on one or more volumes",
    "volume ls": "List volumes",
    "volume prune": "Remove unused local volumes",
    "volume rm": "Remove one or more volumes",
}


def text(
    group: str,
    members: "Mapping[str, str | tuple[str, str]]",
    commands: "Mapping[str, tuple[str, str, str]]",
) -> str:
    """Returns a group's help.

    Args:
        group: its name.
        members: its commands, each the name of one that stands outside of groups too, or its own.
        commands: those outside, with what they do.
    """
    lines = []
    for name in sorted(set(members) - _ALIASES):
        member = members[name]
        about = _OWN.get(f"{group} {name}", "")
        if isinstance(member, str):
            about = about or commands[member][2]
        lines.append(f"  {name:<11} {about}".rstrip())
    listed = "\n".join(lines)
    return (
        f"Usage:  ketch {group} COMMAND\n\n{GROUPS.get(group, '')}\n\nCommands:\n{listed}\n\n"
        f"Run 'ketch {group} COMMAND --help' for more information on a command.\n"
    )
