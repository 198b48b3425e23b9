"""One platform's plan, from stages as they are declared to the image that the target is.

Source: github.com/moby/buildkit, frontend/dockerfile/dockerfile2llb/convert.go.
"""

from typing import TYPE_CHECKING

from ketch.build.graph import Target, Vertex
from ketch.build.planning import arguments, platforms
from ketch.build.planning.applying import apply, set_directory
from ketch.build.planning.beginning import begin
from ketch.build.planning.declaring import declare
from ketch.build.planning.image import DEFAULT_PATH
from ketch.build.planning.inputs import Inputs
from ketch.build.planning.linking import Stages
from ketch.build.planning.setting import Setting, Turn
from ketch.build.planning.stages import (
    Environment,
    Stage,
    State,
    Steps,
    check_cycles,
    reachable,
)
from ketch.errors import InvalidArgumentError
from ketch.spec import image as documents
from ketch.spec import values
from ketch.spec.dockerfile import stages as language
from ketch.spec.dockerfile.checks import StageChecks
from ketch.spec.dockerfile.errors import DockerfileError
from ketch.spec.dockerfile.instructions import Arg, OnBuild

if TYPE_CHECKING:
    from ketch.spec.image import Platform


class Conversion:
    """Plans one platform.

    Args:
        program: the Dockerfile.
        inputs: what stages may begin with.
        setting: what is the same for all of them.
        everything: whether stages are looked at that the target does not need.
    """

    def __init__(
        self,
        program: language.Stages,
        inputs: Inputs,
        setting: Setting,
        *,
        everything: bool = False,
    ) -> None:
        self.program = program
        self.inputs = inputs
        self.setting = setting
        self.everything = everything
        self.stages = Stages()

    def target(self) -> Target:
        """Returns what the platform's image is.

        Raises:
            DockerfileError: it cannot be.
        """
        wanted = self.wanted()
        target = self._finished(wanted, {*self._needed(wanted)})
        broken = self.setting.linter.error()
        if broken is not None:
            raise broken
        return target

    def wanted(self) -> Stage:
        """Plans all that the target needs, and returns the target.

        Raises:
            DockerfileError: something of it cannot be.
        """
        declare(self.setting, self.inputs, self.program, self.stages)
        wanted = self.stages.target(self.setting.request.target)
        for stage, declared in zip([*self.stages.all], self.program.stages, strict=True):
            if not stage.context:
                self.stages.link(stage, declared.instructions)
        check_cycles(self.stages.all)
        if len(self.stages.all) == 1:
            self.stages.all[0].label = ""
        needed = self._resolve(wanted)
        for stage in self.stages.all:
            if stage in needed and stage.state is None:
                stage.state = self._applied(stage)
        return wanted

    def declared(self) -> set[str]:
        """Returns the names of all arguments that the Dockerfile and what it builds on declare."""
        found = {*self.setting.arguments}
        instructions = [
            command.instruction for stage in self.stages.all for command in stage.commands
        ]
        for declared in self.program.stages:
            instructions += declared.instructions
        for instruction in instructions:
            if isinstance(instruction, Arg):
                found |= {variable.name for variable in instruction.variables}
        return found

    def _needed(self, wanted: Stage) -> list[Stage]:
        return self.stages.all if self.everything else reachable(wanted)

    def _resolve(self, wanted: Stage) -> set[Stage]:
        """Finds out what stages begin with, and which are needed; triggers may need more."""
        while True:
            needed = {*self._needed(wanted)}
            begun = [
                stage
                for stage in self.stages.all
                if stage in needed and stage.parent is None and not stage.resolved
            ]
            self.inputs.expect([self._base(stage) for stage in begun])
            for stage in begun:
                stage.resolved = True
                begin(self.setting, self.inputs, self.stages, stage)
            more = False
            for stage in [*self.stages.all]:
                if stage in needed and not stage.triggers_read:
                    stage.triggers_read = True
                    more |= self._read_triggers(stage)
            if not more:
                return needed

    def _base(self, stage: Stage) -> tuple[str, "Platform"]:
        platform = stage.wanted or self.setting.target
        return self.inputs.name_of(stage.base, stage.context, platform), platform

    def _read_triggers(self, stage: Stage) -> bool:
        if stage.parent is not None:
            instructions = (command.instruction for command in stage.parent.commands)
            triggers = [each.trigger for each in instructions if isinstance(each, OnBuild)]
        elif stage.initial is not None and stage.state is None:
            triggers = stage.initial.image.config.pop("OnBuild", [])
        else:
            triggers = []
        return bool(triggers) and self.stages.trigger(stage, triggers)

    def _applied(self, stage: Stage) -> State:
        """Returns what a stage comes to."""
        setting = self.setting
        state = self._inherited(stage)
        image = state.image
        if "PATH" not in dict(image.variables()):
            image.set_variable("PATH", DEFAULT_PATH)
        for name, value in image.variables():
            state.environment.set(name, value)
        if image.config.get("WorkingDir"):
            set_directory(state, image.config["WorkingDir"])
        above = stage.parent.checks if stage.parent is not None else None
        stage.checks = StageChecks(setting.linter, above)
        for command in stage.commands:
            apply(Turn(setting, stage, state, command))
        return state

    def _inherited(self, stage: Stage) -> State:
        if stage.parent is None or stage.parent.state is None:
            assert stage.initial is not None  # what has no parent has been resolved
            return stage.initial
        parent, allowance = stage.parent.state, self.setting.allowance
        allowance.take(0, parent.image.entries + len(parent.arguments))
        return State(
            image=parent.image.clone(),
            platform=parent.platform,
            root=parent.root,
            source=parent.source,
            environment=Environment(parent.environment, allowance),
            steps=Steps(parent.steps, allowance),
            arguments=[*parent.arguments],
            directory=parent.directory,
        )

    def _finished(self, wanted: Stage, needed: set[Stage]) -> Target:
        state, setting = wanted.state, self.setting
        assert state is not None  # it is needed by itself
        image = state.image
        if setting.request.labels:
            image.table("Labels").update(setting.request.labels)
        if setting.explicit:
            image.platform = _asked_for(image.platform, setting.target)
        config = image.document()
        try:
            documents.parse_config(documents.encode(config))
        except InvalidArgumentError as error:
            raise DockerfileError(error.message, error.hint) from error
        return Target(
            platform=platforms.shown(setting.target if setting.explicit else image.platform),
            root=state.root,
            config=config,
            base=state.source,
            steps=state.steps.all(),
            scanned=self._scanned(wanted, needed),
        )

    def _scanned(self, wanted: Stage, needed: set[Stage]) -> dict[str, Vertex]:
        found: dict[str, Vertex] = {}
        if self._asked_to_scan(wanted, arguments.SCAN_CONTEXT):
            found["context"] = self.setting.main
        for stage in self.stages.all:
            if stage not in needed or stage is wanted or stage.state is None:
                continue
            if self._asked_to_scan(stage, arguments.SCAN_STAGE):
                found[stage.label] = stage.state.root
        return found

    def _asked_to_scan(self, stage: Stage, name: str) -> bool:
        declared = dict(stage.state.arguments) if stage.state else {}
        text = declared.get(name) or self.setting.arguments.get(name, "")
        try:
            return values.boolean(text)
        except InvalidArgumentError:
            return bool(text) and stage.label in text.split(",")


def _asked_for(image: "Platform", target: "Platform") -> "Platform":
    """Returns the platform of an image that was made for one."""
    made: Platform = {"architecture": target["architecture"], "os": target["os"]}
    variant = target.get("variant", "")
    if not variant and platforms.same_machine(image, target):
        variant = image.get("variant", "")
    if variant:
        made["variant"] = variant
    return made
