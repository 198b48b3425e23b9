"""The command ``ketch``: which module answers which command, and what an error looks like.

Nothing is imported before it is known to be needed: a container's start is measured from here.
"""

import os
import sys

from ketch.engine.settings import Settings
from ketch.errors import ENGINE_FAILED, KetchError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# Command: (module under ketch.cli, function, what it does). What "ketch container" and
# "ketch image" know as well stands in _GROUPS, as do commands that only they have.
_COMMANDS = {
    "attach": ("attach", "attach", "Attach to a running container"),
    "commit": ("files", "commit", "Create a new image from a container's changes"),
    "cp": ("copy", "cp", "Copy files between a container and the local filesystem"),
    "create": ("run", "create", "Create a new container"),
    "diff": ("files", "diff", "Inspect changes to files or directories of a container"),
    "events": ("events", "events", "Get real time events from the engine"),
    "exec": ("execute", "exec_", "Execute a command in a running container"),
    "export": ("files", "export", "Export a container's filesystem as a tar archive"),
    "history": ("image_show", "history", "Show the history of an image"),
    "images": ("image_list", "images", "List images"),
    "import": ("images", "import_", "Import the contents of a tarball to create an image"),
    "info": ("about", "info", "Display system-wide information"),
    "inspect": ("inspect", "inspect", "Return low-level information on any object"),
    "kill": ("containers", "kill", "Kill one or more running containers"),
    "load": ("archives", "load", "Load an image from a tar archive or STDIN"),
    "login": ("login", "login", "Authenticate to a registry"),
    "logout": ("login", "logout", "Log out from a registry"),
    "logs": ("logs", "logs", "Fetch the logs of a container"),
    "pause": ("containers", "pause", "Pause all processes within one or more containers"),
    "port": ("port", "port", "List port mappings of a container"),
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
    "save": ("archives", "save", "Save one or more images to a tar archive"),
    "start": ("attach", "start", "Start one or more stopped containers"),
    "stats": ("stats", "stats", "Display a live stream of resource usage statistics"),
    "stop": ("containers", "stop", "Stop one or more running containers"),
    "tag": ("images", "tag", "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE"),
    "top": ("top", "top", "Display the running processes of a container"),
    "unpause": ("containers", "unpause", "Unpause all processes within one or more containers"),
    "update": ("update", "update", "Update configuration of one or more containers"),
    "version": ("about", "version", "Show the version information"),
    "wait": ("containers", "wait", "Wait for containers to stop, then print their exit codes"),
}
_GROUPS: "dict[str, dict[str, str | tuple[str, str]]]" = {
    "checkpoint": {
        "create": ("checkpoints", "create"), "list": ("checkpoints", "ls"),
        "ls": ("checkpoints", "ls"), "remove": ("checkpoints", "rm"), "rm": ("checkpoints", "rm"),
    },
    "container": {
        "attach": "attach", "commit": "commit", "cp": "cp", "create": "create", "diff": "diff",
        "exec": "exec", "export": "export",
        "inspect": ("inspect", "inspect_containers"), "kill": "kill", "list": "ps", "logs": "logs",
        "ls": "ps", "pause": "pause", "port": "port", "prune": ("system", "prune_containers"),
        "ps": "ps", "rename": "rename",
        "restart": "restart", "rm": "rm", "run": "run", "start": "start", "stats": "stats",
        "stop": "stop", "top": "top", "unpause": "unpause", "update": "update",
        "wait": "wait",
    },
    "image": {
        "history": "history", "import": "import", "inspect": ("image_show", "inspect"),
        "list": "images", "load": "load", "ls": "images", "prune": ("images", "prune"),
        "pull": "pull", "push": "push", "remove": "rmi", "rm": "rmi", "save": "save", "tag": "tag",
    },
    "manifest": {
        "annotate": ("manifest", "annotate"), "create": ("manifest", "create"),
        "inspect": ("manifest", "inspect"), "push": ("manifest", "push"), "rm": ("manifest", "rm"),
    },
    "system": {
        "df": ("system", "df"), "events": "events", "info": "info", "prune": ("system", "prune"),
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

# Their status is the program's, so a failure of ketch itself has one that few programs use.
_STARTS = {"run"}

_HELP = """
Usage:  ketch [OPTIONS] COMMAND

A complete Linux container engine

Commands:
{commands}

Management Commands:
{groups}

Global Options:
      --no-zygote               Start containers without a warm helper process
      --root string             Directory of what lasts (default "{root}")
      --state string            Directory of what a reboot may lose (default "{state}")
      --storage-driver string   How layers are stacked: overlay2, fuse-overlayfs or vfs
                                (default: what this root uses, or the first that works)
  -v, --version                 Print version information and quit

Run 'ketch COMMAND --help' for more information on a command.
"""


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
        command, function, arguments = _find(rest)
        return function(settings, arguments)

    return guarded(lambda: command, answer)


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
    except BrokenPipeError:
        _silence()
        return 1
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        # Control flow of modules that are not loaded unless they were needed.
        kind = type(error).__name__
        if kind == "HelpRequested":
            sys.stdout.write(f"\n{error}")
            return 0
        if kind == "Failure":
            return _failed(error, command())
        if os.environ.get("KETCH_DEBUG"):
            raise
        status = ENGINE_FAILED if command() in _STARTS else 1
        if isinstance(error, OSError):
            return _say(f"{error}", "", status)
        hint = "This is a bug of ketch. With KETCH_DEBUG=1 in the environment it tells where it is."
        return _say(f"internal error: {error!r}", hint, status)


def _global_options(words: list[str]) -> tuple[Settings | None, list[str]]:
    """Read what stands before the command; None when that was all there was to do."""
    root = os.environ.get("KETCH_ROOT", "/var/lib/ketch")
    state = os.environ.get("KETCH_STATE", "/run/ketch")
    driver = os.environ.get("KETCH_STORAGE_DRIVER", "")
    zygote = True
    rest = list(words)
    while rest and rest[0].startswith("-"):
        word = rest.pop(0)
        name, equals, value = word.partition("=")
        if name in {"--root", "--state", "--storage-driver"}:
            if not equals:
                if not rest:
                    raise _usage(f"flag needs an argument: {name}")
                value = rest.pop(0)
            if not value:
                raise _usage(f"{name}: the name is empty")
            if name == "--storage-driver":
                driver = value
            else:
                root, state = (value, state) if name == "--root" else (root, value)
        elif word == "--no-zygote":
            zygote = False
        elif word in {"-v", "--version"}:
            from ketch import __version__  # noqa: PLC0415

            print(f"ketch version {__version__}")
            return None, []
        elif word in {"-h", "--help"}:
            rest = []
            break
        else:
            raise _usage(f"unknown flag: {name}")
    if not rest or rest == ["help"]:
        commands = "\n".join(f"  {name:<11} {what}" for name, (_, _, what) in _COMMANDS.items())
        from ketch.cli.group_help import GROUPS  # noqa: PLC0415

        groups = "\n".join(f"  {name:<11} {what}" for name, what in GROUPS.items())
        text = _HELP.format(commands=commands, groups=groups, root=root, state=state)
        print(text.strip("\n"))
        return None, []
    return Settings(root, state, zygote=zygote, storage_driver=driver), rest


def _find(words: list[str]) -> "tuple[str, Callable[[Settings, list[str]], int], list[str]]":
    name, arguments = words[0], words[1:]
    if name == "help":
        name, arguments = words[1], ["--help"]
    if name in _GROUPS:
        group = _GROUPS[name]
        if not arguments or arguments[0] in {"-h", "--help"}:
            from ketch.cli import group_help  # noqa: PLC0415 - only who asks pays for it

            help_text = group_help.text(name, group, _COMMANDS)
            # As in Docker: no command is no success to be piped on, and no failure either.
            (sys.stdout if arguments else sys.stderr).write(help_text)
            return name, lambda _settings, _arguments: 0, []
        if arguments[0] not in group:
            raise _usage(
                f"unknown command: ketch {name} {arguments[0]}",
                f"Usage:  ketch {name}\n\nRun 'ketch {name} --help' for more information",
            )
        command, arguments = group[arguments[0]], arguments[1:]
        if not isinstance(command, str):
            return name, _function(*command), arguments
        name = command
    if name not in _COMMANDS:
        raise _usage(f"unknown command: ketch {name}")
    return name, _function(*_COMMANDS[name][:2]), arguments


def _function(module_name: str, function_name: str) -> "Callable[[Settings, list[str]], int]":
    module = __import__(f"ketch.cli.{module_name}", fromlist=[function_name])
    found: Callable[[Settings, list[str]], int] = getattr(module, function_name)
    return found


def _usage(message: str, hint: str = "Run 'ketch --help' for more information") -> KetchError:
    error = KetchError(message, hint)
    error.exit_status = ENGINE_FAILED if message.startswith("flag") else 1  # type: ignore[attr-defined]
    return error


def _failed(error: "Any", command: str) -> int:
    status = getattr(error, "exit_status", None)
    if status is None:
        status = ENGINE_FAILED if command in _STARTS else 1
    return _say(error.message, error.hint, status)


def _say(message: str, hint: str, status: int) -> int:
    text = f"ketch: {message}\n" + (f"\n{hint}\n" if hint else "")
    # A message may quote a hostile image, which is not to speak to the caller's terminal.
    controls = {n: f"\\x{n:02x}" for n in (*range(9), *range(11, 32), *range(127, 160))}
    try:
        sys.stdout.flush()
        sys.stderr.write(text.translate(controls))
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
