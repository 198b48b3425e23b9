"""Instructions as values: a class each, with fields for its flags and arguments.

``reading.py`` makes them of nodes. Their words are as they are written until ``expand`` has put
variables in. Names and values are BuildKit's (frontend/dockerfile/instructions/commands.go).
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol, TypeVar

from ketch.dataclass import dataclass, replace
from ketch.spec.dockerfile import mounts
from ketch.spec.dockerfile.errors import DockerfileError, Place
from ketch.spec.dockerfile.words import Pair

if TYPE_CHECKING:
    from ketch.spec.dockerfile.heredocs import Heredoc
    from ketch.spec.dockerfile.mounts import Device, Mount

AnyInstruction = TypeVar("AnyInstruction", bound="Instruction")


@dataclass(frozen=True, kw_only=True)
class Instruction:
    """What all instructions have.

    Attributes:
        keyword: the first word, in the case that it is written in.
        text: the line, without continuations and without heredocs.
        place: its lines.
        comments: the lines of comment right before it.
    """

    keyword: str
    text: str
    place: Place
    comments: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The keyword in capitals."""
        return self.keyword.upper()


@dataclass(frozen=True, kw_only=True)
class From(Instruction):
    """``FROM [--platform=PLATFORM] BASE [AS NAME]``.

    Attributes:
        base: an image, a stage before it, or ``scratch``; global ARGs may be in it.
        stage: its name in lower case, empty where it has none.
        given_as: the word ``AS`` as it is written, empty where there is none.
        given_stage: the name as it is written.
        platform: may hold global ARGs.
    """

    base: str
    stage: str = ""
    given_as: str = ""
    given_stage: str = ""
    platform: str = ""


@dataclass(frozen=True)
class Variable:
    """A variable of ARG; without a default its value is None."""

    name: str
    default: str | None = None
    description: str = ""


@dataclass(frozen=True, kw_only=True)
class Arg(Instruction):
    """``ARG NAME[=DEFAULT] ...``. ``expand`` leaves it alone: a value that is given wins."""

    variables: tuple[Variable, ...]


@dataclass(frozen=True, kw_only=True)
class Env(Instruction):
    """``ENV NAME=VALUE ...``; values see the variables that were there before it."""

    pairs: tuple[Pair, ...]


@dataclass(frozen=True, kw_only=True)
class Label(Instruction):
    """``LABEL NAME=VALUE ...``."""

    pairs: tuple[Pair, ...]


@dataclass(frozen=True)
class Command:
    """A command: words of the JSON form, or a line for the shell.

    Attributes:
        words: the words; of the shell's form one, or none where nothing was given.
        shell: whether it is for the shell.
        files: heredocs that belong to it.
    """

    words: tuple[str, ...]
    shell: bool
    files: "tuple[Heredoc, ...]" = ()


@dataclass(frozen=True, kw_only=True)
class Run(Instruction):
    """``RUN [--mount=...] [--network=...] [--security=...] [--device=...] COMMAND``.

    Attributes:
        command: what is run; variables in it are the shell's.
        mount_texts: the values of ``--mount`` as they are written.
        mount_sources: the ``from`` of each, which holds no variables; empty where there is none.
        mounts: what they mean, once ``expand`` has read them, None before.
        network: ``default``, ``none`` or ``host``.
        security: ``sandbox`` or ``insecure``.
        devices: CDI devices.
    """

    command: Command
    mount_texts: tuple[str, ...] = ()
    mount_sources: tuple[str, ...] = ()
    mounts: "tuple[Mount, ...] | None" = None
    network: str = "default"
    security: str = "sandbox"
    devices: "tuple[Device, ...]" = ()


@dataclass(frozen=True)
class Content:
    """A file whose content is a heredoc of COPY or ADD.

    Attributes:
        name: its name.
        text: what is in it.
        expand: whether variables in it have a meaning.
    """

    name: str
    text: str
    expand: bool


@dataclass(frozen=True, kw_only=True)
class Transfer(Instruction):
    """What COPY and ADD have in common.

    Attributes:
        sources: paths, patterns, and with ADD URLs and Git repositories.
        contents: heredocs among the sources.
        destination: a path; with ``/`` at its end a directory.
        owner: ``--chown``: ``user[:group]``, names or numbers.
        mode: ``--chmod``: octal or symbolic, see ``modes.parse``.
        link: whether files are laid over the stage without a look at it.
        excluded: patterns of what is left out, which hold no variables.
    """

    sources: tuple[str, ...]
    contents: tuple[Content, ...]
    destination: str
    owner: str = ""
    mode: str = ""
    link: bool = False
    excluded: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Copy(Transfer):
    """``COPY [flags] SOURCE ... DESTINATION``.

    Attributes:
        source_stage: ``--from``: a stage, a context or an image; empty for the build's context.
        parents: whether the sources' directories are made too.
    """

    source_stage: str = ""
    parents: bool = False


@dataclass(frozen=True, kw_only=True)
class Add(Transfer):
    """``ADD [flags] SOURCE ... DESTINATION``.

    Attributes:
        checksum: the digest of a URL's content, or a Git commit.
        keep_git_dir: whether ``.git`` of a repository comes along; None where nothing is said.
        unpack: whether archives are unpacked; None where nothing is said: local ones are.
    """

    checksum: str = ""
    keep_git_dir: bool | None = None
    unpack: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Cmd(Instruction):
    """``CMD COMMAND``."""

    command: Command


@dataclass(frozen=True, kw_only=True)
class Entrypoint(Instruction):
    """``ENTRYPOINT COMMAND``."""

    command: Command


@dataclass(frozen=True, kw_only=True)
class Shell(Instruction):
    """``SHELL ["program", "argument"]``."""

    words: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Healthcheck(Instruction):
    """``HEALTHCHECK [flags] CMD COMMAND``, or ``HEALTHCHECK NONE``.

    Attributes:
        test: as an image has it: ``NONE``; ``CMD`` and words; ``CMD-SHELL`` and a line.
        interval_ns: 0 where it is not given; so with the others.
        timeout_ns: how long one may take.
        start_period_ns: how long failures do not count.
        start_interval_ns: the interval meanwhile.
        retries: how many failures make a container unhealthy.
    """

    test: tuple[str, ...]
    interval_ns: int = 0
    timeout_ns: int = 0
    start_period_ns: int = 0
    start_interval_ns: int = 0
    retries: int = 0


@dataclass(frozen=True, kw_only=True)
class Expose(Instruction):
    """``EXPOSE PORT[/PROTOCOL] ...``; once expanded, see ``ports.exposed``."""

    ports: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class User(Instruction):
    """``USER user[:group]``."""

    user: str


@dataclass(frozen=True, kw_only=True)
class Workdir(Instruction):
    """``WORKDIR PATH``; a relative one goes on from the one before."""

    path: str


@dataclass(frozen=True, kw_only=True)
class Volume(Instruction):
    """``VOLUME PATH ...``."""

    paths: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class StopSignal(Instruction):
    """``STOPSIGNAL SIGNAL``."""

    signal: str


@dataclass(frozen=True, kw_only=True)
class Maintainer(Instruction):
    """``MAINTAINER NAME``."""

    author: str


@dataclass(frozen=True, kw_only=True)
class OnBuild(Instruction):
    """``ONBUILD INSTRUCTION``.

    Attributes:
        trigger: the instruction's text, heredocs included: what the image records.
    """

    trigger: str


class Expanding(Protocol):
    """What puts variables in: ``expansion.Expander``."""

    def word(self, text: str) -> str:
        """Returns a word with variables and without quotes."""

    def raw(self, text: str) -> str:
        """Returns a heredoc's text with variables."""

    def words(self, text: str) -> tuple[str, ...]:
        """Returns the words that a text comes to."""


def expand(instruction: AnyInstruction, expander: Expanding) -> AnyInstruction:
    """Returns an instruction with variables put in where it takes them, its mounts read.

    Not expanded are: FROM (``stages.py``, global ARGs alone), ARG, the commands of RUN, CMD,
    ENTRYPOINT and HEALTHCHECK, SHELL, MAINTAINER, ONBUILD, ``--from`` and ``--exclude``.

    Raises:
        DockerfileError: a word is malformed, or comes to what the instruction cannot have. Its
            place is the instruction's.
    """
    changing = _EXPANDED.get(type(instruction))
    if changing is None:
        return instruction
    try:
        return replace(instruction, **changing(instruction, expander))  # type: ignore[arg-type]
    except DockerfileError as error:
        error.at(instruction.place)
        raise


def _transfer(instruction: Transfer, expander: Expanding) -> dict[str, object]:
    changed: dict[str, object] = {
        "owner": expander.word(instruction.owner),
        "mode": expander.word(instruction.mode),
    }
    if isinstance(instruction, Add):
        changed["checksum"] = expander.word(instruction.checksum)
    changed["sources"] = tuple(map(expander.word, instruction.sources))
    changed["destination"] = expander.word(instruction.destination)
    changed["contents"] = tuple(
        replace(content, text=expander.raw(content.text)) if content.expand else content
        for content in instruction.contents
    )
    return changed


def _pairs(instruction: Env | Label, expander: Expanding) -> dict[str, object]:
    found = []
    for pair in instruction.pairs:
        name, value = expander.word(pair.name), expander.word(pair.value)
        found.append(replace(pair, name=name, value=value))
    return {"pairs": tuple(found)}


def _run(instruction: Run, expander: Expanding) -> dict[str, object]:
    return {"mounts": tuple(mounts.parse(text, expander.word) for text in instruction.mount_texts)}


def _expose(instruction: Expose, expander: Expanding) -> dict[str, object]:
    return {"ports": tuple(word for port in instruction.ports for word in expander.words(port))}


def _volume(instruction: Volume, expander: Expanding) -> dict[str, object]:
    paths = tuple(map(expander.word, instruction.paths))
    if not all(paths):
        raise DockerfileError("VOLUME specified can not be an empty string")
    return {"paths": paths}


_EXPANDED: "Mapping[type, Callable[..., dict[str, object]]]" = {
    Add: _transfer,
    Copy: _transfer,
    Env: _pairs,
    Expose: _expose,
    Label: _pairs,
    Run: _run,
    StopSignal: lambda this, expander: {"signal": expander.word(this.signal)},
    User: lambda this, expander: {"user": expander.word(this.user)},
    Volume: _volume,
    Workdir: lambda this, expander: {"path": expander.word(this.path)},
}
