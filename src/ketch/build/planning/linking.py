"""Which stage needs which: bases, ``COPY --from``, mounts, and the triggers of what is built on.

Source: github.com/moby/buildkit, frontend/dockerfile/dockerfile2llb/convert.go: toCommand,
initOnBuildTriggers, findStateByName.
"""

from collections.abc import Sequence

from ketch.build.planning.stages import COMMANDS_MAX, STAGES_MAX, Command, Stage
from ketch.dataclass import dataclass, field
from ketch.spec.digits import signed
from ketch.spec.dockerfile import stages as language
from ketch.spec.dockerfile.errors import DockerfileError, Place
from ketch.spec.dockerfile.instructions import Copy, Instruction, Run
from ketch.spec.dockerfile.stages import SCRATCH
from ketch.spec.dockerfile.suggestions import did_you_mean
from ketch.spec.values import quoted


@dataclass
class Stages:
    """All stages, those of the Dockerfile first, then images that files are taken from.

    Attributes:
        all: in their order.
        commands: how many commands all of them have.
    """

    all: list[Stage] = field(default_factory=list)
    commands: int = 0
    _by_name: dict[str, Stage] = field(default_factory=dict)
    _images: dict[str, Stage] = field(default_factory=dict)

    def add(self, stage: Stage) -> None:
        """Adds a stage, on top of the one before it that has the name of its base.

        Raises:
            DockerfileError: there are too many.
        """
        if len(self.all) == STAGES_MAX:
            raise DockerfileError(
                f"more than {STAGES_MAX} stages and images", places=(stage.place,)
            )
        if not stage.context:
            stage.parent = self._by_name.get(stage.base)
        self.all.append(stage)
        if stage.name:
            self._by_name[stage.name.lower()] = stage

    def target(self, name: str) -> Stage:
        """Returns the stage that is to be built: the last one, or that of a name or a number.

        Raises:
            DockerfileError: there is no such stage.
        """
        if not name:
            return self.all[-1]
        found = self._by_name.get(name.lower())
        number = signed(name)
        if found is None and number is not None and 0 <= number < len(self.all):
            return self.all[number]
        if found is None:
            raise DockerfileError(
                f"target stage {quoted(name)} could not be found{did_you_mean(name, self.labels())}"
            )
        return found

    def labels(self) -> list[str]:
        """Returns what the stages are called."""
        return [stage.label for stage in self.all if stage.label]

    def link(self, stage: Stage, instructions: Sequence[Instruction]) -> None:
        """Adds instructions to a stage, and finds the stages that they take files from.

        Raises:
            DockerfileError: one names a stage that cannot be.
        """
        stage.commands = [self._command(stage, each) for each in instructions]
        self._count(stage, len(stage.commands))

    def trigger(self, stage: Stage, triggers: Sequence[str]) -> bool:
        """Puts the triggers of what a stage builds on before its commands.

        Returns:
            Whether they name stages or images.

        Raises:
            DockerfileError: one is malformed.
        """
        self._count(stage, len(triggers))
        commands = []
        for text in triggers:
            command = self._command(stage, language.trigger(text, stage.place))
            command.triggered = True
            commands.append(command)
        stage.commands[:0] = commands
        stage.total += len(commands)
        return any(command.sources for command in commands)

    def _count(self, stage: Stage, more: int) -> None:
        self.commands += more
        if self.commands > COMMANDS_MAX:
            raise DockerfileError(
                f"more than {COMMANDS_MAX} instructions, triggers included", places=(stage.place,)
            )

    def _command(self, stage: Stage, instruction: Instruction) -> Command:
        try:
            sources = self._sources(instruction)
        except DockerfileError as error:
            raise error.at(instruction.place) from None
        for source in sources:
            if source is not None:
                stage.needs.setdefault(source, instruction.place)
        return Command(instruction, sources)

    def _sources(self, instruction: Instruction) -> tuple[Stage | None, ...]:
        if isinstance(instruction, Copy) and instruction.source_stage:
            return (self._copied_from(instruction.source_stage, instruction.place),)
        if isinstance(instruction, Run):
            return tuple(
                self._mounted_from(name, instruction.place) for name in instruction.mount_sources
            )
        return ()

    def _copied_from(self, name: str, place: Place) -> Stage:
        number = signed(name)
        if number is None:
            return self._by_name.get(name.lower()) or self._external(name, place)
        if not 0 <= number < len(self.all):
            raise DockerfileError(f"invalid stage index {number}")
        return self.all[number]

    def _mounted_from(self, name: str, place: Place) -> Stage | None:
        if name:
            return self._by_name.get(name.lower()) or self._external(name, place)
        # BuildKit counts a stage for these too, which shows in names: there is more than one then.
        self._external(SCRATCH, place)
        return None

    def _external(self, name: str, place: Place) -> Stage:
        found = self._images.get(name)
        if found is None:
            found = self._images[name] = Stage(
                name="", label="", place=place, base=name, external=True
            )
            self.add(found)
        return found
