"""The command ``ketch-oci``: global options, dispatch, and what an error looks like."""

import os
import sys

from ketch.errors import KetchError, UnavailableError
from ketch.runtime.cli import commands, grammar
from ketch.runtime.cli.log import Log
from ketch.spec.flag import Flag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

PROGRAM = "ketch-oci"
_NO_COMMAND = 3  # exit status, runc's
_EXEC_FAILED = 255
# Go's words, strconv.ParseBool.
_TRUE = ("1", "t", "T", "true", "TRUE", "True")
_FALSE = ("0", "f", "F", "false", "FALSE", "False")
_HELP = Flag("help", "h", "bool", "show this")
_DESCRIPTION = f"""\
{PROGRAM} runs containers as the Open Container Initiative's specifications have them: a bundle is a
directory with a configuration, "config.json", and a root file system.

To start a container:

    # {PROGRAM} run [ -b bundle ] <container-id>

Its name must be unique on this machine. Without "-b" the bundle is the current directory."""
_FAILED_PREFIX = {
    "create": f"{PROGRAM} create failed: ",
    "exec": "exec failed: ",
    "restore": f"{PROGRAM} restore failed: ",
    "run": f"{PROGRAM} run failed: ",
}


class Settings:
    """What stands before the command.

    Attributes:
        root: directory of the containers' state.
        is_default_root: whether nobody chose it.
        log: where messages go.
        rootless: whether to go on where cgroups may not be made.
        systemd: whether systemd makes the cgroups.
        criu: path of criu.
    """

    __slots__ = ("criu", "is_default_root", "log", "root", "rootless", "systemd")

    def __init__(
        self, root: str, log: Log, *, is_default_root: bool = False, rootless: bool = False,
        systemd: bool = False, criu: str = "criu",
    ) -> None:  # fmt: skip
        self.root = root
        self.is_default_root = is_default_root
        self.log = log
        self.rootless = rootless
        self.systemd = systemd
        self.criu = criu


def main() -> "NoReturn":
    """Run this process's command line and end."""
    status = run(sys.argv[1:])
    sys.stdout.flush()
    # What the interpreter does at its end takes 2 ms, and nothing here needs it.
    os._exit(status)


def run(words: list[str]) -> int:
    """Run a command line.

    Args:
        words: the arguments after the program's name.

    Returns:
        The exit status: that of the process for ``run`` and ``exec``, 0, or 1 for what failed
        (255 for ``exec``).
    """
    log, name = Log(), ""
    try:
        parsed = _global_options(words)
        if parsed is None:
            return 0
        log = Log(parsed.text("log"), parsed.text("log-format"), debug=parsed.enabled("debug"))
        settings = _settings(parsed, log)
        name, *rest = parsed.arguments
        if name not in commands.FUNCTIONS:
            log.failure(f"No help topic for '{name}'")
            return _NO_COMMAND
        command = commands.command(name)
        options = _command_options(command, rest)
        if options is None:
            return 0
        module_name, function_name = commands.FUNCTIONS[name]
        module = __import__(f"ketch.runtime.cli.{module_name}", fromlist=[function_name])
        status: int = getattr(module, function_name)(settings, options)
    except grammar.UsageError as error:
        sys.stdout.write(error.help)
        log.failure(error.message)
        return 1
    except KetchError as error:
        log.failure(f"{_FAILED_PREFIX.get(name, '')}{error.message}", error.hint)
    except BrokenPipeError:
        return 1
    except OSError as error:
        log.failure(f"{_FAILED_PREFIX.get(name, '')}{_said(error)}")
    except KeyboardInterrupt:
        return 130
    else:
        return status
    return _EXEC_FAILED if name == "exec" else 1


def _said(error: OSError) -> str:
    """An error as Go's os.PathError has it: the path, then what is wrong with it."""
    reason = (error.strerror or str(error)).lower()
    return f"open {error.filename}: {reason}" if error.filename else reason


def _global_options(words: list[str]) -> grammar.Parsed | None:
    """Read what stands before the command; None when that was all there was to do."""
    try:
        parsed = grammar.parse(commands.GLOBAL, words, interspersed=False)
    except KetchError as error:
        raise grammar.UsageError(
            error.message, f"Incorrect Usage. {error.message}\n\n{_help()}"
        ) from error
    if parsed.enabled("version"):
        print(f"{PROGRAM} version {_version()}")
        return None
    if parsed.help or not parsed.arguments or parsed.arguments[0] in {"help", "h"}:
        topic = "".join(parsed.arguments[1:2])
        if topic and topic not in commands.FUNCTIONS:
            # Let run() say so, as of any other command that there is not.
            parsed.arguments = [topic]
            return parsed
        text = grammar.help_text(PROGRAM, commands.command(topic)) if topic else _help()
        sys.stdout.write(text)
        return None
    return parsed


def _command_options(command: grammar.Command, words: list[str]) -> grammar.Parsed | None:
    """Read what stands after the command; None when that asked for help only."""
    help_ = grammar.help_text(PROGRAM, command)
    try:
        parsed = grammar.parse(command.flags, words, interspersed=command.interspersed)
    except KetchError as error:
        raise grammar.UsageError(
            error.message, f"Incorrect Usage: {error.message}\n\n{help_}"
        ) from error
    if parsed.help:
        sys.stdout.write(help_)
        return None
    try:
        grammar.check_count(PROGRAM, command, len(parsed.arguments))
    except grammar.UsageError as error:
        raise grammar.UsageError(error.message, f"Incorrect Usage.\n\n{help_}") from error
    return parsed


def _settings(parsed: grammar.Parsed, log: Log) -> Settings:
    from ketch.errors import InvalidArgumentError  # noqa: PLC0415

    asked = parsed.text("rootless")
    if asked not in {*_TRUE, *_FALSE} and asked.lower() not in {"auto", ""}:
        raise InvalidArgumentError(f'invalid value "{asked}" for --rootless: true, false or auto')
    rootless = asked in _TRUE or (asked not in _FALSE and _is_rootless())
    return Settings(
        os.path.abspath(parsed.text("root") or _default_root()), log,
        is_default_root=not parsed.text("root"), rootless=rootless,
        systemd=parsed.enabled("systemd-cgroup"), criu=parsed.text("criu"),
    )  # fmt: skip


def _default_root() -> str:
    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    return f"{runtime}/{PROGRAM}" if runtime and _is_rootless() else f"/run/{PROGRAM}"


def _is_rootless() -> bool:
    """Whether this user is not the machine's root."""
    if os.geteuid() != 0:
        return True
    with open("/proc/self/uid_map", encoding="ascii") as file:
        return file.readline().split() != ["0", "0", str(2**32 - 1)]


def _version() -> str:
    """The version in runc's form: its callers look for these lines, dockerd for the commit."""
    from ketch import __version__  # noqa: PLC0415 - few ask
    from ketch.runtime import libseccomp  # noqa: PLC0415
    from ketch.spec.features import OCI_VERSION  # noqa: PLC0415

    lines = [__version__, f"commit: {__version__}", f"spec: {OCI_VERSION}"]
    try:  # noqa: SIM105 contextlib is not loaded without need
        lines.append(f"libseccomp: {libseccomp.Libseccomp().version()}")
    except UnavailableError:
        pass
    return "\n".join(lines)


def _help() -> str:
    rows = "\n".join(
        f"   {name:<12}{commands.command(name).summary}" for name in commands.FUNCTIONS
    )
    return (
        f"NAME:\n   {PROGRAM} - Open Container Initiative runtime\n\n{_DESCRIPTION}\n\n"
        f"USAGE:\n   {PROGRAM} [global options] command [command options] [arguments...]\n\n"
        f"VERSION:\n   {_version()}\n\n"
        f"COMMANDS:\n{rows}\n   {'help, h':<12}show this, or help for one command\n\n"
        f"GLOBAL OPTIONS:\n{grammar.option_lines((*commands.GLOBAL, _HELP))}\n"
    )
