"""Stages as the planner knows them: what each needs, and what has come of it so far."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING

from ketch.build.graph import ImageSource, Step, Vertex
from ketch.build.planning.arguments import Declared
from ketch.build.planning.image import Image
from ketch.dataclass import dataclass, field
from ketch.spec.dockerfile.checks import StageChecks
from ketch.spec.dockerfile.errors import DockerfileError, Place
from ketch.spec.dockerfile.instructions import From, Instruction

if TYPE_CHECKING:
    from ketch.spec.image import Platform

STAGES_MAX = 1_000
"""How many stages a Dockerfile may have, with the images that it copies from."""

COMMANDS_MAX = 20_000
"""How many instructions all stages may come to, with the triggers of what they build on."""

_PLANNED_MAX = 128 << 20
_ENTRY = 64


class Allowance:
    """How much a plan may come to: what a Dockerfile multiplies, this bounds.

    Stages inherit variables, labels and ports, and each of them may change one.
    """

    def __init__(self) -> None:
        self._left = _PLANNED_MAX

    def take(self, characters: int, entries: int = 0) -> None:
        """Takes room for text, and for entries of lists and tables.

        Raises:
            DockerfileError: there is none left.
        """
        self._left -= characters + entries * _ENTRY
        if self._left < 0:
            raise DockerfileError(
                "the Dockerfile comes to a plan that is too large",
                "long values in variables, and stages that inherit them, multiply",
            )


class Environment(dict[str, str]):
    """Variables, which a stage inherits and goes on from.

    Args:
        inherited: what is there before.
        allowance: what they are taken of.
    """

    def __init__(self, inherited: Mapping[str, str], allowance: Allowance) -> None:
        allowance.take(0, len(inherited))
        super().__init__(inherited)
        self._allowance = allowance
        self._listed: tuple[str, ...] | None = None

    def set(self, name: str, value: str) -> None:
        """Sets a variable; it is the last one then."""
        self.pop(name, None)
        self[name] = value
        self._listed = None

    def listed(self) -> tuple[str, ...]:
        """Returns all as ``NAME=value``."""
        if self._listed is None:
            self._listed = tuple(f"{name}={value}" for name, value in self.items())
            self._allowance.take(sum(map(len, self._listed)))
        return self._listed


class Steps:
    """A stage's history, which goes on from that of the stage that it builds on."""

    def __init__(self, before: "Steps | None", allowance: Allowance) -> None:
        self._before = before
        self._own: list[Step] = []
        self._allowance = allowance

    def add(self, created_by: str, vertex: Vertex | None = None) -> None:
        """Adds a line."""
        self._allowance.take(len(created_by), 1)
        self._own.append(Step(created_by, vertex))

    def all(self) -> list[Step]:
        """Returns all lines, the first one first."""
        parts: list[list[Step]] = []
        steps: Steps | None = self
        while steps is not None:
            parts.append(steps._own)
            steps = steps._before
        return [step for part in reversed(parts) for step in part]


@dataclass
class State:
    """What a stage has come to.

    Attributes:
        image: its configuration.
        platform: what it is made for.
        root: its files.
        source: the image at its bottom, None for scratch.
        environment: what its programs see.
        arguments: the build arguments that it declared, and those it inherited, in that order.
        directory: where its programs start.
        steps: its history.
    """

    image: Image
    platform: "Platform"
    root: Vertex
    source: ImageSource | None
    environment: Environment
    steps: Steps
    arguments: list[tuple[str, str | None]] = field(default_factory=list)
    directory: str = ""


@dataclass(eq=False)
class Command:
    """An instruction of a stage.

    Attributes:
        instruction: it, not expanded.
        sources: the stages that COPY, or each mount of RUN, takes files from; None for the main
            context, or nothing.
        triggered: whether it comes from ONBUILD of what the stage builds on.
    """

    instruction: Instruction
    sources: "tuple[Stage | None, ...]" = ()
    triggered: bool = False


@dataclass(eq=False)
class Stage:
    """A stage of a Dockerfile, or an image that one of them takes files from.

    Attributes:
        name: what it is called in the Dockerfile, may be empty.
        label: what it is called in names of vertices, may be empty.
        place: its FROM, or the instruction that names the image.
        begin: its FROM, None where it has none.
        description: what a comment says of it.
        base: what it builds on, expanded.
        parent: the stage that it builds on, None for an image.
        wanted: the platform that its FROM asks for.
        context: the named context that stands in its place, empty for none.
        commands: what follows the FROM, triggers first.
        needs: other stages that files are taken from, and where.
        external: whether it is no stage of the Dockerfile.
        ignore_cache: whether no earlier results of it are taken.
        total: how many of its vertices are counted in their names.
        position: how many of them have had their names.
        resolved: whether its base is known, or need not be.
        triggers_read: whether its base's triggers are among its commands.
        initial: what it begins with, from its base image.
        state: what it came to, None before it has been planned.
        declared: its arguments, for those who ask what the Dockerfile takes.
        used: names of the arguments that had a part in it.
        secrets: ids of secrets that it asks for, where, and whether they must be there.
        agents: the same of ssh agents.
        command_given: whether it has had a CMD of its own.
        checks: what is looked at in its instructions, None where nothing is.
    """

    name: str
    label: str
    place: Place
    base: str
    begin: From | None = None
    description: str = ""
    parent: "Stage | None" = None
    wanted: "Platform | None" = None
    context: str = ""
    commands: list[Command] = field(default_factory=list)
    needs: "dict[Stage, Place]" = field(default_factory=dict)
    external: bool = False
    ignore_cache: bool = False
    total: int = 0
    position: int = 0
    resolved: bool = False
    triggers_read: bool = False
    initial: State | None = None
    state: State | None = None
    declared: dict[str, Declared] = field(default_factory=dict)
    used: set[str] = field(default_factory=set)
    secrets: dict[str, tuple[Place, bool]] = field(default_factory=dict)
    agents: dict[str, tuple[Place, bool]] = field(default_factory=dict)
    command_given: bool = False
    checks: StageChecks | None = None


def reachable(target: Stage) -> list[Stage]:
    """Returns a stage and all that it needs, in no particular order, each once."""
    found: dict[Stage, None] = {}
    pending = [target]
    while pending:
        stage = pending.pop()
        if stage in found:
            continue
        found[stage] = None
        if stage.parent is not None:
            pending.append(stage.parent)
        pending += stage.needs
    return [*found]


def check_cycles(stages: Iterable[Stage]) -> None:
    """Refuses stages that take files from each other.

    Raises:
        DockerfileError: with the places of the instructions that are to blame.
    """
    done: set[Stage] = set()
    for stage in stages:
        if stage not in done:
            _visit(stage, done)


def _visit(first: Stage, done: set[Stage]) -> None:
    path: dict[Stage, Iterator[Stage]] = {first: iter(first.needs)}
    while path:
        stage = next(reversed(path))
        needed = next(path[stage], None)
        if needed is None:
            del path[stage]
            done.add(stage)
        elif needed in path:
            cycle = [*path]
            cycle = [*cycle[cycle.index(needed) :], needed]
            places = [one.needs[other] for one, other in pairwise(cycle)]
            raise DockerfileError(
                f"circular dependency detected on stage: {first.label}", places=places
            )
        elif needed not in done:
            path[needed] = iter(needed.needs)
