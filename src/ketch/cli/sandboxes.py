"""``ketch sandbox``: programs that nobody has read, at work on a project that stays as it is."""

import os
import sys
import time

from ketch.cli import execute
from ketch.cli.each import for_each
from ketch.cli.flags import Command, Flag, parse
from ketch.cli.session import Failure
from ketch.cli.tables import table
from ketch.engine.engine import Engine as Listing
from ketch.errors import InvalidArgumentError, in_words, on_one_line, spelt_out
from ketch.library.engine import Engine
from ketch.library.given import SECONDS_MAX
from ketch.sandbox.egress.secret import Secret
from ketch.sandbox.sandbox import Sandbox
from ketch.spec import environment, timestamps
from ketch.spec.digits import decimal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ketch.cli.flags import Parsed
    from ketch.engine.settings import Settings
    from ketch.sandbox.changes import ProjectChange

_ENV = Flag("env", "e", "list", "Set environment variables", convert=environment.variable)
_LIMITS = (
    Flag("cpus", help="Number of CPUs (default 2, of an image 1; 0 for no limit)"),
    Flag("disk", help="How much may be written to each directory (default 1g, of an image 256m)"),
    Flag("egress", "", "list", "Hosts that may be reached, or 'all' (default none)"),
    Flag("memory", "m", help="Memory limit (default 2g, of an image 512m; 0 for no limit)"),
    Flag("pids-limit", help="Process limit (default 512, of an image 128; 0 for no limit)"),
    Flag(
        "secret",
        "",
        "list",
        "Value that programs use for a host and never see: "
        "NAME,host=HOST of the variable NAME, or NAME,env=VARIABLE,host=HOST, or "
        "NAME,file=PATH,host=HOST; NAME=VALUE,host=HOST shows it to all who list processes",
    ),
)
RUN = Command(
    "ketch sandbox run [OPTIONS] COMMAND [ARG...]",
    "Run a program in a sandbox\n\n"
    "It sees the machine's own programs and the project, or an image. What it writes to the "
    "project is kept aside, to be looked at and taken over by 'ketch sandbox diff' and 'ketch "
    "sandbox apply'. A sandbox with changes stays, until 'ketch sandbox rm' or until nobody has "
    "used it for --idle-timeout.",
    (
        *_LIMITS,
        _ENV,
        Flag("idle-timeout", help="End it when nobody has used it for so many seconds",
             default="86400"),
        Flag("image", help="Image to run in, in place of the machine's programs"),
        Flag("name", help="Assign a name to the sandbox"),
        Flag("project", help="Directory to work on", default="."),
        Flag("publish", "p", "list", "Ports of its own at which the machine reaches it"),
        Flag("rm", "", "bool", "Remove the sandbox, with all changes, when the program ends"),
        Flag("timeout", help="Seconds until it is ended, with all changes"),
        Flag("volume", "v", "list", "Show a file or directory, SOURCE[:TARGET[:rw]]"),
    ),
    minimum_arguments=1,
    interspersed=False,
)  # fmt: skip
LS = Command(
    "ketch sandbox ls [OPTIONS]",
    "List sandboxes",
    (Flag("quiet", "q", "bool", "Only display names"),),
    maximum_arguments=0,
)
EXEC = Command(
    "ketch sandbox exec [OPTIONS] SANDBOX COMMAND [ARG...]",
    "Run another program in a sandbox",
    (_ENV,),
    minimum_arguments=2,
    interspersed=False,
)
DIFF = Command(
    "ketch sandbox diff [OPTIONS] SANDBOX",
    "Show what a sandbox did to its project",
    (Flag("name-only", "", "bool", "Only display what was done to which path"),),
    minimum_arguments=1,
    maximum_arguments=1,
)
APPLY = Command(
    "ketch sandbox apply [OPTIONS] SANDBOX [PATH...]",
    "Take over what a sandbox did to its project, all of it or what is at or below the paths\n\n"
    "What Git keeps in .git is taken over when it is named. Links that lead out of the project, "
    "and what is no file, are not. What was changed in the project as well, since the sandbox "
    "began, is left, unless --overwrite says that the sandbox's takes its place.",
    (Flag("overwrite", "", "bool", "Take the sandbox's of what was changed in both"),),
    minimum_arguments=1,
)
RM = Command(
    "ketch sandbox rm SANDBOX [SANDBOX...]",
    "Remove one or more sandboxes, with all changes that were not taken over",
    (),
    minimum_arguments=1,
)

_SECRET_MAX = 1 << 20
_MARKS = {"added": "A", "changed": "M", "deleted": "D"}
_NO_LIMIT = ("memory", "cpus", "pids")


def run(settings: "Settings", arguments: list[str]) -> int:
    """Answer ``ketch sandbox run``."""
    parsed = parse(RUN, arguments)
    engine = engine_of(settings)
    create = creation(parsed)
    image = parsed.text("image")
    if image:
        sandbox = Sandbox.create(image, engine=engine, **create)
    else:
        sandbox = Sandbox.host(parsed.text("project"), engine=engine, **create)
    keeps = False
    try:
        status = _execute(settings, parsed, sandbox.name, parsed.arguments)
        keeps = not parsed.enabled("rm") and tell_of_changes(sandbox.name, engine)
    finally:
        if not keeps:
            sandbox.kill()
    return status


def tell_of_changes(name: str, engine: Engine) -> bool:
    """Say what to do with what a sandbox changed; returns whether there is anything."""
    sandbox = Sandbox.connect(name, engine=engine)
    if not (sandbox.project and sandbox.is_running):
        return False
    count = len(sandbox.changes())
    if count:
        sys.stderr.write(
            f"\n{count} path{'s'[: count > 1]} of {on_one_line(sandbox.project)} changed in sandbox"
            f" {name}\n  look:       ketch sandbox diff {name}\n  take over:  ketch sandbox apply"
            f" {name}\n  remove:     ketch sandbox rm {name}\n"
        )
    return bool(count)


def ls(settings: "Settings", arguments: list[str]) -> int:
    """Answer ``ketch sandbox ls``."""
    parsed = parse(LS, arguments)
    found = Sandbox.list(engine=engine_of(settings))
    if parsed.enabled("quiet"):
        print("".join(f"{one.name}\n" for one in found), end="")
        return 0
    listing, now_ns = Listing(settings), time.time_ns()
    rows = [["NAME", "PROJECT OR IMAGE", "CREATED", "STATUS"]]
    for one in found:
        record = listing.containers.find(one.id)
        made = f"{timestamps.spoken(now_ns - record.created_ns)} ago"
        shown = on_one_line(one.project) or record.image_reference
        rows.append([one.name, shown, made, record.status])
    print(table(rows), end="")
    return 0


def exec_(settings: "Settings", arguments: list[str]) -> int:
    """Answer ``ketch sandbox exec``."""
    parsed = parse(EXEC, arguments)
    name, *words = parsed.arguments
    return _execute(settings, parsed, Sandbox.connect(name, engine=engine_of(settings)).name, words)


def diff(settings: "Settings", arguments: list[str]) -> int:
    """Answer ``ketch sandbox diff``."""
    parsed = parse(DIFF, arguments)
    sandbox = Sandbox.connect(parsed.arguments[0], engine=engine_of(settings))
    for change in sandbox.changes():
        if change.conflict:
            sys.stderr.write(
                f"conflict: {on_one_line(change.path)}: {on_one_line(change.conflict)}\n"
            )
        if change.text and not parsed.enabled("name-only"):
            sys.stdout.write(_shown(change.text))
        else:
            print(_line(change))
    return 0


def apply(settings: "Settings", arguments: list[str]) -> int:
    """Answer ``ketch sandbox apply``."""
    parsed = parse(APPLY, arguments)
    name, *paths = parsed.arguments
    sandbox = Sandbox.connect(name, engine=engine_of(settings))
    for change in sandbox.apply(*paths, overwrite=parsed.enabled("overwrite")):
        print(f"{_MARKS[change.kind]} {on_one_line(change.path)}")
    left = [] if paths else sandbox.changes()
    for change in left:
        why = change.refused or (
            f"{change.conflict}: --overwrite takes the sandbox's" if change.conflict
            else "Git keeps it: name it to take it over"
        )  # fmt: skip
        sys.stderr.write(f"left: {on_one_line(change.path)}: {on_one_line(why)}\n")
    return 1 if any(change.conflict for change in left) else 0


def rm(settings: "Settings", arguments: list[str]) -> int:
    """Answer ``ketch sandbox rm``."""
    engine = engine_of(settings)

    def remove(name: str) -> str:
        Sandbox.connect(name, engine=engine).kill()
        return name

    return for_each(parse(RM, arguments).arguments, remove)


def engine_of(settings: "Settings") -> Engine:
    """Returns the library's engine in a command's places."""
    return Engine(settings.root, settings.state, zygote=settings.zygote)


def creation(parsed: "Parsed") -> "dict[str, Any]":
    """Returns what the command line says of how it is made, as ``Sandbox.create`` takes it."""
    published = parsed.items("publish") if "publish" in parsed.values else []
    said: dict[str, Any] = {
        "name": parsed.text("name") or None, "lifetime": "container",
        "timeout": _seconds(parsed, "timeout"), "idle_timeout": _seconds(parsed, "idle-timeout"),
        "ports": [_port(text) for text in published], **limits(parsed),
    }  # fmt: skip
    mounts = {}
    for text in parsed.items("volume"):
        source, *rest = text.split(":")
        writable = len(rest) > 1 and rest.pop() == "rw"
        if len(rest) > 1 or not source:
            raise InvalidArgumentError(f"--volume {text}: SOURCE[:TARGET[:rw]] is wanted")
        place = os.path.abspath(os.path.expanduser(source))
        mounts[place] = (rest[0] if rest else place) + ":rw" * writable
    return {**said, "mounts": mounts}


def limits(parsed: "Parsed") -> "dict[str, Any]":
    """What ``_LIMITS`` say, as ``Sandbox.create`` takes it."""
    said: dict[str, Any] = {
        "memory": parsed.text("memory"), "disk": parsed.text("disk"),
        "cpus": _number(parsed, "cpus"), "pids": _number(parsed, "pids-limit", whole=True),
    }  # fmt: skip
    said = {name: value for name, value in said.items() if value not in {"", None}}
    said |= {name: None for name in _NO_LIMIT if said.get(name) in {"0", 0}}
    if said.get("pids"):
        said["pids"] = int(said["pids"])
    egress = parsed.items("egress")
    return {
        **said, "egress": None if egress == ["all"] else tuple(egress),
        "secrets": [_secret(text) for text in parsed.items("secret")],
    }  # fmt: skip


def _number(parsed: "Parsed", name: str, *, whole: bool = False) -> float | None:
    """What an option says, a number from 0 on; None where it says nothing."""
    text = parsed.text(name)
    if not text:
        return None
    kind = "whole number" if whole else "number"
    try:
        found = float(text)
    except ValueError as error:
        raise InvalidArgumentError(f"--{name} {text}: it is no {kind}") from error
    # A word such as "nan" is a number to Python, and "1e400" one without end.
    if not 0 <= found <= SECONDS_MAX or (whole and not found.is_integer()):
        raise InvalidArgumentError(f"--{name} {text}: a {kind} from 0 to {SECONDS_MAX} is wanted")
    return found


def _seconds(parsed: "Parsed", name: str) -> float | None:
    return _number(parsed, name) or None


def _secret(text: str) -> Secret:
    """Reads ``--secret``. What it says is nobody's to repeat, in an error either."""
    head, *rest = text.split(",")
    name, given, value = head.partition("=")
    shown = f"--secret {name}"
    hosts = []
    sources = [given]
    for part in rest:
        key, _, said = part.partition("=")
        if key == "host" and said:
            hosts.append(said)
        elif key in {"env", "file"} and said:
            sources.append(key)
            value = said
        else:
            raise InvalidArgumentError(
                f"{shown}: what stands behind a comma is host=HOST, env=VARIABLE or file=PATH",
                "a value with a comma in it comes by env or file",
            )
    sources = [source for source in sources if source]
    if len(sources) > 1:
        raise InvalidArgumentError(f"{shown}: one of =VALUE, env=VARIABLE and file=PATH is wanted")
    if sources == ["file"]:
        value = _first_line(shown, value)
    elif sources != ["="]:
        variable = value or name
        if variable not in os.environ:
            raise InvalidArgumentError(
                f"{shown}: your environment has no variable {variable}",
                "set it, or say where the value is: env=VARIABLE, file=PATH",
            )
        value = os.environ[variable]
    if not hosts:
        raise InvalidArgumentError(f"{shown}: for whom? host=HOST is wanted")
    return Secret(name, value, hosts=hosts)


def _first_line(shown: str, path: str) -> str:
    """A file's only line."""
    try:
        with open(os.path.expanduser(path), encoding="utf-8", errors="surrogateescape") as file:
            return file.read(_SECRET_MAX).removesuffix("\n")
    except OSError as error:
        raise InvalidArgumentError(f"{shown}: {path}: {in_words(error)}") from error


def _port(text: str) -> int:
    port = decimal(text)
    if not port or port >= 1 << 16:
        raise InvalidArgumentError(f"--publish {text}: it is no port", "name the program's own")
    return port


def _execute(settings: "Settings", parsed: "Parsed", name: str, words: list[str]) -> int:
    """Run a program with the caller's streams, and its terminal where it has one."""
    terminal = os.isatty(0) and os.isatty(1)
    given = [word for text in parsed.items("env") for word in ("--env", text)]
    flags = ["--interactive", *(["--tty"] if terminal else []), *given]
    try:
        return execute.exec_(settings, [*flags, name, *words])
    except Failure as failure:
        failure.exit_status = failure.exit_status or 125
        raise


def _line(change: "ProjectChange") -> str:
    shown = f"{_MARKS[change.kind]} {change.what:9} {on_one_line(change.path)}"
    if change.target:
        shown += f" -> {on_one_line(change.target)}"
    return f"{shown}  ({on_one_line(change.refused)})" if change.refused else shown


def _shown(text: str) -> str:
    """A difference: spelt out for a terminal, and for a program as it is."""
    if sys.stdout.isatty():
        return spelt_out(text)
    return text.encode(errors="surrogateescape").decode(errors="replace")
