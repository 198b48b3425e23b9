"""Instructions fall into global ARGs and stages.

Source: github.com/moby/buildkit, frontend/dockerfile: instructions/parse.go,
dockerfile2llb/convert.go.
"""

from typing import TYPE_CHECKING

from ketch.dataclass import dataclass
from ketch.spec.dockerfile import parsing, reading
from ketch.spec.dockerfile.errors import DockerfileError, Place
from ketch.spec.dockerfile.expansion import process_word
from ketch.spec.dockerfile.instructions import Arg, Copy, From

if TYPE_CHECKING:
    from ketch.spec.dockerfile.instructions import Instruction
    from ketch.spec.dockerfile.parsing import Dockerfile

SCRATCH = "scratch"
"""The base that has no files."""


@dataclass(frozen=True)
class Stage:
    """A FROM and what follows it.

    Attributes:
        index: how many stages are before it.
        begin: its FROM, whose base and platform may hold global ARGs.
        instructions: what follows, as it is written.
        description: what a comment before the FROM says after the stage's name.
    """

    index: int
    begin: From
    instructions: "tuple[Instruction, ...]"
    description: str = ""

    @property
    def name(self) -> str:
        """Its name in lower case, empty where it has none."""
        return self.begin.stage

    @property
    def label(self) -> str:
        """What it is called in messages: its name, or ``stage-N``."""
        return self.begin.stage or f"stage-{self.index}"


@dataclass(frozen=True)
class Stages:
    """All stages of a Dockerfile, in their order.

    Attributes:
        dockerfile: what they come from.
        global_args: the ARGs before the first FROM.
        stages: at least one.
    """

    dockerfile: "Dockerfile"
    global_args: tuple[Arg, ...]
    stages: tuple[Stage, ...]


def read(dockerfile: "Dockerfile") -> Stages:
    """Reads the instructions of a Dockerfile, and sorts them into stages.

    Raises:
        DockerfileError: an instruction is wrong, or stands before the first FROM.
    """
    global_args: list[Arg] = []
    found: list[tuple[From, list[Instruction]]] = []
    for node in dockerfile.nodes:
        try:
            instruction = reading.read(node)
        except DockerfileError as error:
            raise DockerfileError(
                f"dockerfile parse error on line {node.place.first}: {error.message}",
                error.hint, error.places, dockerfile.source,
            ) from error  # fmt: skip
        if isinstance(instruction, From):
            found.append((instruction, []))
        elif found:
            _check_source_stage(instruction, dockerfile)
            found[-1][1].append(instruction)
        elif isinstance(instruction, Arg):
            global_args.append(instruction)
        else:
            raise DockerfileError(
                "no build stage in current context", "begin with FROM",
                (node.place,), dockerfile.source,
            )  # fmt: skip
    if not found:
        raise DockerfileError("dockerfile contains no stages to build", "it needs a FROM")
    stages = [
        Stage(index, begin, tuple(inner), reading.described(begin.comments, begin.stage))
        for index, (begin, inner) in enumerate(found)
    ]
    return Stages(dockerfile, tuple(global_args), tuple(stages))


def trigger(text: str, place: Place) -> "Instruction":
    """Reads an ONBUILD trigger that an image records.

    Args:
        text: the instruction.
        place: of the FROM whose base the image is; errors and steps refer to it.

    Raises:
        DockerfileError: it is malformed, or not one instruction that may follow a FROM.
    """
    try:
        nodes = parsing.parse(text.encode(errors="surrogateescape")).nodes
    except DockerfileError as error:
        # Its lines are not the Dockerfile's.
        raise DockerfileError(error.message, error.hint, (place,)) from error
    if len(nodes) != 1:
        raise DockerfileError("onbuild trigger should be a single expression", places=(place,))
    instruction = reading.read(nodes[0], place)
    if isinstance(instruction, From):
        raise DockerfileError("FROM isn't allowed as an ONBUILD trigger", places=(place,))
    _check_source_stage(instruction, None)
    return instruction


def _check_source_stage(instruction: "Instruction", dockerfile: "Dockerfile | None") -> None:
    if not isinstance(instruction, Copy) or not instruction.source_stage:
        return
    source = dockerfile.source if dockerfile else None
    try:
        expanded = process_word(instruction.source_stage, {})
    except DockerfileError as error:
        error.at(instruction.place, source=source)
        raise
    if expanded != instruction.source_stage:
        raise DockerfileError(
            "variable expansion is not supported for --from, define a new stage with FROM using "
            "ARG from global scope as a workaround",
            places=(instruction.place,), source=source,
        )  # fmt: skip
