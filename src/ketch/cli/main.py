"""The command ``ketch``: which module answers which command, and what an error looks like.

Nothing is imported before it is known to be needed: a container's start is measured from here.
"""

import os
import sys

from ketch.cli.flags import Command, Flag, HelpRequested, UsageError, parse, screen_columns
from ketch.engine.settings import UNSHARED, Settings, is_ordinary
from ketch.errors import ENGINE_FAILED, InvalidArgumentError, KetchError, spelt_out

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from typing import Any, NoReturn

    from ketch.cli.flags import Parsed

# Command: (module under ketch.cli, function, what it does). What "ketch container" and
# "ketch image" know as well stands in GROUPS, as do commands that only they have.
COMMANDS = {
    "attach": (
        "attach",
        "attach",
        "Attach local standard input, output, and error streams to a running container",
    ),
    "build": ("build", "build", "Start a build"),
    "commit": ("files", "commit", "Create a new image from a container's changes"),
    "compose": ("compose", "compose", "Run a Compose project, by docker's Compose"),
    "cp": ("copy", "cp", "Copy files/folders between a container and the local filesystem"),
    "create": ("run", "create", "Create a new container"),
    "diff": (
        "files",
        "diff",
        "Inspect changes to files or directories on a container's filesystem",
    ),
    "events": ("events", "events", "Get real time events from the server"),
    "exec": ("execute", "exec_", "Execute a command in a running container"),
    "export": ("files", "export", "Export a container's filesystem as a tar archive"),
    "history": ("image_show", "history", "Show the history of an image"),
    "images": ("image_list", "images", "List images"),
    "import": (
        "images",
        "import_",
        "Import the contents from a tarball to create a filesystem image",
    ),
    "info": ("about", "info", "Display system-wide information"),
    "inspect": (
        "inspect",
        "inspect",
        "Return low-level information on containers, images, networks and volumes",
    ),
    "kill": ("containers", "kill", "Kill one or more running containers"),
    "lab": ("lab", "lab", "Enter the lab, a container in which to try out how containers work"),
    "load": ("archives", "load", "Load an image from a tar archive or STDIN"),
    "login": ("login", "login", "Authenticate to a registry"),
    "logout": ("login", "logout", "Log out from a registry"),
    "logs": ("logs", "logs", "Fetch the logs of a container"),
    "mcp": ("mcp", "mcp", "Serve a sandbox to language models, by the Model Context Protocol"),
    "mount": ("mount", "mount", "Mount the root filesystems of containers, or list those mounted"),
    "ns": (
        "anatomy",
        "ns",
        "Show the namespaces, control groups, mounts and links that containers are made of",
    ),
    "pause": ("containers", "pause", "Pause all processes within one or more containers"),
    "port": ("port", "port", "List port mappings or a specific mapping for the container"),
    "ps": ("ps", "ps", "List containers"),
    "pull": ("pull", "pull", "Download an image from a registry"),
    "push": ("pull", "push", "Upload an image to a registry"),
    "rename": ("rename", "rename", "Rename a container"),
    "restart": ("containers", "restart", "Restart one or more containers"),
    "rm": ("containers", "rm", "Remove one or more containers"),
    "rmi": ("images", "rmi", "Remove one or more images"),
    "run": ("run", "run", "Create and run a new container from an image"),
    "search": ("search", "search", "Search Docker Hub for images"),
    "serve": ("serve", "serve", "Serve the Docker Engine API"),
    "save": (
        "archives",
        "save",
        "Save one or more images to a tar archive (streamed to STDOUT by default)",
    ),
    "start": ("attach", "start", "Start one or more stopped containers"),
    "stats": ("stats", "stats", "Display a live stream of container(s) resource usage statistics"),
    "stop": ("containers", "stop", "Stop one or more running containers"),
    "tag": ("images", "tag", "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE"),
    "top": ("top", "top", "Display the running processes of a container"),
    "umount": ("mount", "umount", "Unmount the root filesystems of containers"),
    "unshare": (
        "unshare",
        "unshare",
        "Run a command in the namespaces of an ordinary user's engine",
    ),
    "unpause": ("containers", "unpause", "Unpause all processes within one or more containers"),
    "update": ("update", "update", "Update configuration of one or more containers"),
    "version": ("about", "version", "Show the version information"),
    "wait": (
        "containers",
        "wait",
        "Block until one or more containers stop, then print their exit codes",
    ),
}
GROUPS: "dict[str, dict[str, str | tuple[str, str]]]" = {
    "builder": {
        "build": "build", "du": ("builder", "du"), "prune": ("builder", "prune"),
    },
    "checkpoint": {
        "create": ("checkpoints", "create"), "list": ("checkpoints", "ls"),
        "ls": ("checkpoints", "ls"), "remove": ("checkpoints", "rm"), "rm": ("checkpoints", "rm"),
    },
    "completion": {
        "bash": ("completion", "bash"), "fish": ("completion", "fish"),
        "zsh": ("completion", "zsh"),
    },
    "container": {
        "attach": "attach", "commit": "commit", "cp": "cp", "create": "create", "diff": "diff",
        "exec": "exec", "export": "export",
        "inspect": ("inspect", "inspect_containers"), "kill": "kill", "list": "ps", "logs": "logs",
        "ls": "ps", "mount": "mount", "pause": "pause", "port": "port",
        "prune": ("system", "prune_containers"),
        "ps": "ps", "rename": "rename",
        "remove": "rm", "restart": "restart", "rm": "rm", "run": "run", "start": "start",
        "stats": "stats", "stop": "stop", "top": "top",
        "umount": "umount", "unmount": "umount", "unpause": "unpause", "update": "update",
        "wait": "wait",
    },
    "image": {
        "build": "build", "history": "history", "import": "import",
        "inspect": ("image_show", "inspect"),
        "list": "images", "load": "load", "ls": "images", "mount": ("mount", "mount_images"),
        "prune": ("images", "prune"),
        "pull": "pull", "push": "push", "remove": "rmi", "rm": "rmi", "save": "save", "tag": "tag",
        "umount": ("mount", "umount_images"), "unmount": ("mount", "umount_images"),
    },
    "manifest": {
        "annotate": ("manifest", "annotate"), "create": ("manifest", "create"),
        "inspect": ("manifest", "inspect"), "push": ("manifest", "push"), "rm": ("manifest", "rm"),
    },
    "sandbox": {
        "apply": ("sandboxes", "apply"), "diff": ("sandboxes", "diff"),
        "exec": ("sandboxes", "exec_"), "list": ("sandboxes", "ls"), "ls": ("sandboxes", "ls"),
        "remove": ("sandboxes", "rm"), "rm": ("sandboxes", "rm"), "run": ("sandboxes", "run"),
    },
    "system": {
        "check": ("system_check", "check"), "df": ("system", "df"), "events": "events",
        "info": "info", "prune": ("system", "prune"), "repair": ("system_repair", "repair"),
        "reset": ("system_reset", "reset"),
        "start": ("system_start", "start"),
    },
    "volume": {
        "create": ("volumes", "create"), "inspect": ("volumes", "inspect"),
        "list": ("volumes", "ls"), "ls": ("volumes", "ls"), "prune": ("volumes", "prune"),
        "remove": ("volumes", "rm"), "rm": ("volumes", "rm"),
    },
    "network": {
        "connect": ("networks", "connect"), "create": ("networks", "create"),
        "disconnect": ("networks", "disconnect"), "inspect": ("networks", "inspect"),
        "list": ("networks", "ls"), "ls": ("networks", "ls"), "prune": ("networks", "prune"),
        "remove": ("networks", "rm"), "rm": ("networks", "rm"),
    },
}  # fmt: skip

# What the scripts of ``ketch completion`` ask, by the names that cobra gave these questions.
_HIDDEN = {
    "__complete": ("complete", "complete"),
    "__completeNoDesc": ("complete", "complete_without_descriptions"),
}
# What talks to other machines, or asks the zygote for a process that may: for an ordinary user
# these stay in the host's network, from which others leave for the one of the user's containers.
_OUTSIDE = {
    "build", "builder", "create", "checkpoint", "exec", "import", "lab", "load", "login", "logout",
    "manifest", "mcp", "pull", "push", "restart", "run", "sandbox", "save", "search", "serve",
    "start", "unshare",
}  # fmt: skip
# What needs no engine; what this user cannot have, "system check" finds out by itself.
_AT_HOME = {"completion", "version"}
# What shows in the mount namespace of who calls, so that an ordinary user has to be there already.
_UNSHARED_FIRST = {"mount", "umount", "unmount"}
# Their status is the program's, so a failure of ketch itself has one that few programs use.
_STARTS = {"run"}


def main(words: list[str] | None = None) -> int:
    """Run one command line.

    Args:
        words: the arguments after the program's name; those of this process when None.

    Returns:
        The exit status: the program's own for ``run`` and ``exec``, else 0, 1 for a command that
        failed, 125 for an engine that failed or a command line that is wrong.
    """
    command = ""
    _open_streams()

    def answer() -> int:
        nonlocal command
        settings, rest = _global_options(sys.argv[1:] if words is None else words)
        if settings is None:
            return 0
        command, function, arguments = find(rest)
        if settings.home:
            _enter(settings, command, rest)
        if rest[0] not in GROUPS or command == rest[0]:
            return function(settings, arguments)
        try:
            return function(settings, arguments)
        except (HelpRequested, UsageError) as told:
            from ketch.cli import overview  # noqa: PLC0415 - only who is told pays for it

            name = overview.ALIASES.get(rest[1], rest[1])
            raise told.called(f"ketch {command}", f"ketch {rest[0]} {name}") from told

    return guarded(lambda: command, answer)


def leave(status: int) -> "NoReturn":
    """End this process, as ``sys.exit`` does, but without taking the interpreter apart: 2 ms.

    Args:
        status: the exit status.
    """
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except Exception:  # noqa: BLE001 - closed, full, nobody reads: Python has words for each
        sys.exit(status)
    os._exit(status)


def guarded(command: "Callable[[], str]", do: "Callable[[], int]") -> int:
    """Do something, and tell the user what went wrong.

    Args:
        command: returns the name of the command that is being answered, once it is known.
        do: returns the exit status.

    Returns:
        The exit status.
    """
    try:
        return do()
    except KetchError as error:
        return _failed(error, command())
    except HelpRequested as request:
        from ketch.cli import overview  # noqa: PLC0415 - only who asks pays for it

        aliases = overview.names(request.command.path, COMMANDS, GROUPS)
        sys.stdout.write("\n" + request.text(aliases if len(aliases) > 1 else ()))
        return 0
    except BrokenPipeError:
        _silence()
        return 1
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        # That of a module which is not loaded unless it was needed.
        if type(error).__name__ == "Failure":
            return _failed(error, command())
        if os.environ.get("KETCH_DEBUG"):
            raise
        status = ENGINE_FAILED if command() in _STARTS else 1
        if isinstance(error, OSError):
            return _say(str(error).removeprefix(f"[Errno {error.errno}] "), "", status)
        hint = "This is a bug of ketch. With KETCH_DEBUG=1 in the environment it tells where it is."
        return _say(f"internal error: {error!r}", hint, status)


def program() -> Command:
    """Returns what may stand before a command, with the environment's defaults, if it has any."""
    root, state = "/var/lib/ketch", "/run/ketch"
    if is_ordinary():
        from ketch.engine.home import places  # noqa: PLC0415 - for ordinary users alone

        root, state = places.root(), places.state()
    root = os.environ.get("KETCH_ROOT") or root
    state = os.environ.get("KETCH_STATE") or state
    driver = os.environ.get("KETCH_STORAGE_DRIVER", "")
    return Command(
        "ketch [OPTIONS] COMMAND",
        "A complete Linux container engine",
        (
            Flag("no-zygote", "", "bool", "Start containers without a warm helper process"),
            Flag("root", help="Directory of what lasts", default=root, convert=_named),
            Flag("state", help="Directory of what a reboot may lose", default=state,
                 convert=_named),
            Flag("storage-driver", default=driver,
                 help="How layers are stacked: overlay2, fuse-overlayfs or vfs (what this root "
                      "uses or the first that works, if empty)"),
            Flag("version", "v", "bool", "Print version information and quit"),
        ),
        interspersed=False,
    )  # fmt: skip


def _named(directory: str) -> str:
    if not directory:
        raise InvalidArgumentError("the name is empty")
    return directory


def _global_options(words: list[str]) -> tuple[Settings | None, list[str]]:
    """Read what stands before the command.

    Returns:
        The settings, and the command with what follows it. Of settings there are none when
        something was shown instead: the help, or the version.

    Raises:
        UsageError: an option is unknown or wrong.
    """
    command = program()
    try:
        parsed = parse(command, words)
    except HelpRequested:
        parsed = None
    if parsed is not None and parsed.enabled("version"):
        from ketch import __version__  # noqa: PLC0415

        print(f"ketch version {__version__}")
        return None, []
    if parsed is None or parsed.arguments in ([], ["help"]):
        from ketch.cli import overview  # noqa: PLC0415 - only who asks pays for it

        print(overview.whole(command, COMMANDS, screen_columns()), end="")
        return None, []
    return engine_settings(parsed), parsed.arguments


def engine_settings(parsed: "Parsed") -> Settings:
    """Returns which engine is meant by what stands before a command."""
    home = ""
    if is_ordinary():
        from ketch.engine.home import places  # noqa: PLC0415 - for ordinary users alone

        home = places.configuration()
    return Settings(
        parsed.text("root"), parsed.text("state"), home=home,
        zygote=not parsed.enabled("no-zygote"), storage_driver=parsed.text("storage-driver"),
    )  # fmt: skip


def _enter(settings: Settings, command: str, words: list[str]) -> None:
    """Become root in the namespaces of the ordinary user who called, unless help will do."""
    if command in _AT_HOME or words[-1] == "--help" or words[:2] == ["system", "check"]:
        return
    called = words[:2] if words[0] in GROUPS else words[:1]
    if called[-1] in _UNSHARED_FIRST and UNSHARED not in os.environ:
        raise UsageError(
            f'cannot run "ketch {" ".join(called)}" here: what it mounts shows in the user\'s own '
            "namespaces alone",
            "run ketch unshare first",
            exit_status=ENGINE_FAILED,
        )
    from ketch.engine.home import entering  # noqa: PLC0415 - for ordinary users alone

    entering.enter(settings, network=command not in _OUTSIDE and words[:2] != ["system", "start"])


def find(words: list[str]) -> "tuple[str, Callable[[Settings, list[str]], int], list[str]]":
    """Find what answers a command, given the words from the command on.

    Returns:
        The command's name, the function, and the arguments for it.

    Raises:
        UsageError: there is no such command.
    """
    name, arguments = words[0], words[1:]
    if name == "help":
        name, arguments = words[1], ["--help"]
    if name in GROUPS:
        group = GROUPS[name]
        if not arguments or arguments[0] in {"-h", "--help"}:
            from ketch.cli import overview  # noqa: PLC0415 - only who asks pays for it

            help_text = overview.text(name, group, COMMANDS)
            # As in Docker: no command is no success to be piped on, and no failure either.
            (sys.stdout if arguments else sys.stderr).write(help_text)
            return name, lambda _settings, _arguments: 0, []
        if arguments[0] not in group:
            raise _unknown(arguments[0], name, group)
        command, arguments = group[arguments[0]], arguments[1:]
        if not isinstance(command, str):
            return name, _function(*command), arguments
        name = command
    if name in _HIDDEN:
        return name, _function(*_HIDDEN[name]), arguments
    if name not in COMMANDS:
        raise _unknown(name, "", (*COMMANDS, *GROUPS))
    return name, _function(*COMMANDS[name][:2]), arguments


def _function(module_name: str, function_name: str) -> "Callable[[Settings, list[str]], int]":
    module = __import__(f"ketch.cli.{module_name}", fromlist=[function_name])
    found: Callable[[Settings, list[str]], int] = getattr(module, function_name)
    return found


def _unknown(name: str, group: str, known: "Collection[str]") -> UsageError:
    from ketch.cli import corrections  # noqa: PLC0415 - only for who mistyped

    path = f"ketch {group}" if group else "ketch"
    hints = [
        corrections.of_command(name, group, known),
        f"Usage:  {path}" if group else "",
        f"Run '{path} --help' for more information",
    ]
    return UsageError(
        f"unknown command: {path} {name}", "\n\n".join(filter(None, hints)), exit_status=1
    )


def _failed(error: "Any", command: str) -> int:
    status = getattr(error, "exit_status", None)
    if status is None:
        status = ENGINE_FAILED if command in _STARTS else 1
    return _say(error.message, error.hint, status)


def _say(message: str, hint: str, status: int) -> int:
    text = f"ketch: {message}\n" + (f"\n{hint}\n" if hint else "")
    try:
        sys.stdout.flush()
        sys.stderr.write(spelt_out(text))
        sys.stderr.flush()
    except OSError:
        _silence()
    return status


def _open_streams() -> None:
    """Open what the caller closed of the standard streams, or other things would get their numbers.

    Python has found out at its start; the lowest free number is what open(2) gives.
    """
    for stream in (sys.stdin, sys.stdout, sys.stderr):
        if stream is None:
            os.set_inheritable(os.open("/dev/null", os.O_RDWR), True)


def _silence() -> None:
    """Write to nobody from now on: whoever read has gone, and it must not be tried at exit."""
    null = os.open("/dev/null", os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
