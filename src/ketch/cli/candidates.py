"""What the arguments of commands and the values of their flags can be, as far as one can tell.

A table that another module has is named here, and loaded when it is asked for: somebody waits.
"""

import os

from ketch.dataclass import dataclass
from ketch.engine.records import states
from ketch.spec import endpoints, restart
from ketch.spec import reference as references

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ketch.cli.flags import Command, Flag
    from ketch.engine.engine import Engine
    from ketch.engine.settings import Settings

# The numbers are cobra's ShellCompDirectives, which can be added up.
NO_SPACE = 2
NO_FILES = 4
DIRECTORIES = 16


@dataclass
class Place:
    """Where the cursor is on a command line.

    Args:
        settings: the engine that is meant.
        command: the command, and what it accepts.
        given: the flags before the cursor by long name, each with its last value.
        arguments: the arguments before the cursor.
        word: what is already there of the flag's value, or of the argument.
    """

    settings: "Settings"
    command: "Command"
    given: dict[str, str]
    arguments: list[str]
    word: str

    @property
    def name(self) -> str:
        """The command without the program: ``run``, ``network rm``."""
        return self.command.path.partition(" ")[2]

    def engine(self) -> "Engine | None":
        """The engine, None where there is none yet: looking for candidates makes nothing."""
        if not os.path.exists(f"{self.settings.root}/ketch.db"):
            return None
        from ketch.engine.engine import Engine  # noqa: PLC0415 - few candidates need it

        return Engine(self.settings)


class Answer:
    """What fits.

    Args:
        words: in the order in which they are shown, whatever is already typed.
        directive: what a shell is to do about them: the sum of the constants above, 0 to offer
            files as well.
    """

    __slots__ = ("directive", "words")

    def __init__(self, words: "Iterable[str]" = (), directive: int = NO_FILES) -> None:
        self.words = list(words)
        self.directive = directive


def of_flag(place: Place, flag: "Flag") -> Answer:
    """Returns what a flag's value can be."""
    find = _OF_FLAGS.get(f"{place.name} --{flag.name}") or _OF_FLAGS.get(f"--{flag.name}")
    return find(place) if find else Answer()


def of_argument(place: Place) -> Answer:
    """Returns what the next argument can be, by the word that stands for it in the usage line."""
    usage, taken = place.command.usage.partition("\n")[0], len(place.arguments)
    terms = usage.removeprefix(place.command.path).replace("[OPTIONS]", "").split()
    if taken < len(terms):
        term = terms[taken]
    elif terms and terms[-1].endswith("...]"):
        term = terms[-1]
    else:
        return Answer()
    word = term.strip("[].").partition("[")[0]
    find = _OF_ARGUMENTS.get(f"{place.name} {word}") or _OF_ARGUMENTS.get(word)
    answer = find(place) if find else Answer()
    answer.words = [word for word in answer.words if word not in place.arguments]
    return answer


def _fixed(*words: str) -> "Callable[[Place], Answer]":
    # What goes on after a sign is no whole word.
    parts = any(word[-1] in "=:-" for word in words)
    return lambda _place: Answer(words, NO_FILES | NO_SPACE if parts else NO_FILES)


def _table(place: str, *others: str, sign: str = "") -> "Callable[[Place], Answer]":
    """The names of a table ``MODULE:NAME`` of ketch's, with a sign behind each."""

    def find(asked: Place) -> Answer:
        return _fixed(*others, *sorted(f"{name}{sign}" for name in _load(place)))(asked)

    return find


def _load(place: str) -> "Iterable[str]":
    module, _, name = place.partition(":")
    loaded: Iterable[str] = getattr(__import__(f"ketch.{module}", fromlist=[name]), name)
    return loaded


def _files(_place: Place) -> Answer:
    return Answer(directive=0)


def _directories(_place: Place) -> Answer:
    return Answer(directive=DIRECTORIES)


# Container: in which states each command takes it, if not in all. "rm" looks at --force, too.
_STOPPED = {states.CREATED, states.EXITED, states.DEAD}
_RUNNING = {states.RUNNING, states.RESTARTING}
_STATES = {
    "attach": _RUNNING, "checkpoint create": _RUNNING, "exec": _RUNNING, "kill": states.ACTIVE,
    "pause": _RUNNING, "port": states.ACTIVE, "rm": _STOPPED, "start": _STOPPED,
    "ns": states.ACTIVE, "stats": states.ACTIVE, "stop": states.ACTIVE, "top": states.ACTIVE,
    "unpause": {states.PAUSED}, "wait": states.ACTIVE,
}  # fmt: skip


def _containers(place: Place) -> Answer:
    wanted = None if "force" in place.given else _STATES.get(place.name)
    engine = place.engine()
    found = engine.containers.list(all=True) if engine else []
    return Answer(
        container.name for container in found if wanted is None or container.status in wanted
    )


def _sandboxes(place: Place) -> Answer:
    engine = place.engine()
    found = engine.containers.list() if engine else []
    return Answer(
        one.name for one in found
        if "org.ketch.sandbox" in (one.record["Config"].get("Labels") or {})
    )  # fmt: skip


def _any_container(place: Place) -> Answer:
    engine = place.engine()
    return Answer(one.name for one in engine.containers.list(all=True)) if engine else Answer()


def _images(place: Place) -> Answer:
    engine = place.engine()
    names = sorted(
        references.parse(name).familiar
        for image in (engine.images.list() if engine else ())
        for name in image.names
        if "@" not in name
    )
    if ":" not in place.word:  # what it is that most people go on to type
        names += sorted({name.removesuffix(":latest") for name in names} - set(names))
    return Answer(names)


def _networks(place: Place) -> Answer:
    engine = place.engine()
    return Answer(one.name for one in engine.networks.every()) if engine else Answer()


def _volumes(place: Place) -> Answer:
    engine = place.engine()
    return Answer(one.name for one in engine.volumes.list()) if engine else Answer()


def _checkpoints(place: Place) -> Answer:
    engine = place.engine()
    if engine is None:
        return Answer()
    container = engine.containers.find(place.arguments[0])
    directory = os.path.abspath(text) if (text := place.given.get("checkpoint-dir")) else ""
    from ketch.engine.containers import checkpoints  # noqa: PLC0415 - loads what makes them, too

    return Answer(checkpoints.list_(place.settings, container, directory))


def _anything(place: Place) -> Answer:
    finders = {
        "container": _any_container, "image": _images, "network": _networks, "volume": _volumes,
    }  # fmt: skip
    kind = place.given.get("type", "")
    chosen = [finders[kind]] if kind in finders else [] if kind else finders.values()
    return Answer(word for find in chosen for word in find(place).words)


def _copied(place: Place) -> Answer:
    """Either end of a copy: a file here or, before the colon, the container that has one."""
    if ":" in place.word:
        return Answer()
    return Answer((f"{name}:" for name in _any_container(place).words), NO_SPACE)


def _mounted(place: Place) -> Answer:
    """The first part of a ``--volume``: a volume, or a file here."""
    if ":" in place.word:
        return Answer()
    return Answer((f"{name}:" for name in _volumes(place).words), NO_SPACE)


def _namespace(*others: str) -> "Callable[[Place], Answer]":
    """The modes of a namespace that may be another container's."""

    def find(place: Place) -> Answer:
        if endpoints.is_container(place.word) and ":" in place.word:
            return Answer(f"container:{name}" for name in _any_container(place).words)
        return Answer(["container:", *others], NO_FILES | NO_SPACE)

    return find


def _joined(place: Place) -> Answer:
    """The values of ``run --network``."""
    answer = _namespace()(place)
    if ":" not in place.word:
        answer.words = [*_networks(place).words, *answer.words, *endpoints.PRIVATE]
        answer.directive = NO_FILES
    return answer


def _variables(_place: Place) -> Answer:
    return Answer(sorted(os.environ))


def _log_options(place: Place) -> Answer:
    from ketch.spec import log_drivers  # noqa: PLC0415 - see above

    known = log_drivers.OPTIONS
    chosen = known.get(place.given.get("log-driver", ""))
    names = set().union(*known.values()) if chosen is None else chosen
    return Answer(
        (f"{name}=" for name in sorted(names | log_drivers.OPTIONS_OF_ALL)), NO_FILES | NO_SPACE
    )


def _formats(*words: str) -> "Callable[[Place], Answer]":
    """Of ``--format``, what is no template."""
    tabular = {"ps", "images", "stats", "network ls", "volume ls", "system df", "search", "history"}
    return lambda place: Answer([*words, "table"] if place.name in tabular else words)


def _filters(table: str, **values_of: "Callable[[Place], Answer]") -> "Callable[[Place], Answer]":
    """The values of a ``--filter``: the names of a table, then what fits to one."""

    def find(place: Place) -> Answer:
        name, equals, text = place.word.partition("=")
        if not equals:
            return _table(table, sign="=")(place)
        if name not in values_of:
            return Answer()
        inner = Place(place.settings, place.command, place.given, [], text)
        return Answer(f"{name}={word}" for word in values_of[name](inner).words)

    return find


_TRUTH = _fixed("true", "false")
_STATUS = _fixed(
    states.CREATED, states.RESTARTING, states.RUNNING, states.REMOVING, states.PAUSED,
    states.EXITED, states.DEAD,
)  # fmt: skip

# Flag, behind a command where it means something of its own there: its values.
_OF_FLAGS: "dict[str, Callable[[Place], Answer]]" = {
    "--attach": _fixed("stderr", "stdin", "stdout"),
    "--cap-add": _table("spec.capabilities:NAMES", "ALL"),
    "--cap-drop": _table("spec.capabilities:NAMES", "ALL"),
    "--cgroupns": _fixed("host", "private"),
    "--checkpoint-dir": _directories,
    "--cidfile": _files,
    "--config-from": _networks,
    "--detach-keys": _fixed("ctrl-"),
    "--device": _files,
    "network create --driver": _table("network.definition:DRIVERS"),
    "volume create --driver": _fixed("local"),
    "--env": _variables,
    "--env-file": _files,
    "container prune --filter": _filters("engine.pruning:FILTERS"),
    "events --filter": _filters(
        "engine.records.events:FILTERS",
        container=_any_container, image=_images, network=_networks, volume=_volumes,
        type=_table("cli.inspect:TYPES"),
    ),
    "image prune --filter": _filters("engine.images.listing:PRUNE_FILTERS", dangling=_TRUTH),
    "images --filter": _filters(
        "engine.images.listing:LIST_FILTERS", before=_images, dangling=_TRUTH,
        reference=_images, since=_images,
    ),
    "network ls --filter": _filters(
        "engine.networks.listing:LIST_FILTERS", dangling=_TRUTH,
        driver=_table("network.definition:DRIVERS"), name=_networks,
        scope=_fixed("local"), type=_fixed("builtin", "custom"),
    ),
    "network prune --filter": _filters("engine.networks.listing:PRUNE_FILTERS"),
    "ps --filter": _filters(
        "engine.views.listing:FILTERS", ancestor=_images, before=_any_container,
        health=_fixed("healthy", "none", "starting", "unhealthy"), name=_any_container,
        network=_networks, since=_any_container, status=_STATUS, volume=_volumes,
    ),
    "search --filter": _filters("images.registry.search:FILTERS"),
    "system prune --filter": _filters("engine.pruning:FILTERS"),
    "volume ls --filter": _filters(
        "engine.volumes.listing:LIST_FILTERS", dangling=_TRUTH, driver=_fixed("local"),
        name=_volumes,
    ),
    "volume prune --filter": _filters("engine.volumes.listing:PRUNE_FILTERS"),
    "--format": _formats("json"),
    "save --format": _table("cli.archives:FORMATS"),
    "--gpus": _fixed("all"),
    "sandbox run --image": _images,
    "--health-on-failure": _fixed("kill", "none", "restart", "stop"),
    "--input": _files,
    "--ipc": _namespace("host", "none", "private", "shareable"),
    "--isolation": _fixed("default"),
    "--label-file": _files,
    "--link": _any_container,
    "--log-driver": _table("spec.log_drivers:OPTIONS"),
    "--log-level": _fixed("debug", "error", "info", "warn"),
    "--log-opt": _log_options,
    "--network": _joined,
    "--output": _files,
    "--pid": _namespace("host"),
    "--project": _directories,
    "--platform": _fixed(
        "linux/386", "linux/amd64", "linux/arm", "linux/arm/v5", "linux/arm/v6", "linux/arm/v7",
        "linux/arm64", "linux/arm64/v8", "linux/ppc64le", "linux/riscv64", "linux/s390x",
    ),
    "--pull": _fixed("always", "missing", "never"),
    "--restart": _fixed(*restart.NAMES),
    "--root": _directories,
    "--runtime": _table("spec.runtime_names:OWN"),
    "--security-opt": _fixed(
        "apparmor=", "label=", "no-new-privileges", "seccomp=", "systempaths=unconfined",
        "writable-cgroups=true",
    ),
    "--signal": _table("spec.signals:NUMBERS"),
    "--state": _directories,
    "--systemd": _fixed("always", "auto", "false"),
    "--stop-signal": _table("spec.signals:NUMBERS"),
    "--storage-driver": _table("images.drivers:NAMES"),
    "--storage-opt": _fixed("size="),
    "--tlscacert": _files,
    "--tlscert": _files,
    "--tlskey": _files,
    "inspect --type": _table("cli.inspect:TYPES"),
    "--ulimit": _table("spec.values:ULIMITS", sign="="),
    "--userns": _namespace("auto", "auto:size=", "host"),
    "--uts": _fixed("host"),
    "--volume": _mounted,
    "--volume-driver": _fixed("local"),
    "--volumes-from": _any_container,
}  # fmt: skip

# What stands for an argument in usage lines, behind a command as above: what it can be.
_OF_ARGUMENTS: "dict[str, Callable[[Place], Answer]]" = {
    "CHECKPOINT": _checkpoints,
    "checkpoint create CHECKPOINT": lambda _place: Answer(),
    "CONTAINER": _containers,
    "CONTAINER:SRC_PATH": _copied,
    "DEST_PATH|-": _copied,
    "IMAGE": _images,
    "NAME": _images,
    "NAME|ID": _anything,
    "NETWORK": _networks,
    "network create NETWORK": lambda _place: Answer(),
    "REPOSITORY": _images,
    "SOURCE_IMAGE": _images,
    "TARGET_IMAGE": _images,
    "VOLUME": _volumes,
    "volume create VOLUME": lambda _place: Answer(),
    "SANDBOX": _sandboxes,
    "file|URL|-": _files,
}
