"""One platform's plan, from stages as they are declared to the image that the target is.

Source: github.com/moby/buildkit, frontend/dockerfile/dockerfile2llb/convert.go.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ketch.build.graph import ImageSource, Target, Vertex
from ketch.build.planning import arguments, names, platforms
from ketch.build.planning.applying import apply, set_directory
from ketch.build.planning.image import DEFAULT_PATH, Image
from ketch.build.planning.inputs import Beginning, Inputs, base_name, with_digest
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
from ketch.errors import InvalidArgumentError, KetchError
from ketch.spec import image as documents
from ketch.spec import values
from ketch.spec.dockerfile import stages as language
from ketch.spec.dockerfile.errors import DockerfileError
from ketch.spec.dockerfile.instructions import Arg, OnBuild, Run, Transfer, Workdir
from ketch.spec.dockerfile.stages import SCRATCH
from ketch.spec.dockerfile.suggestions import did_you_mean
from ketch.spec.reference import Reference

if TYPE_CHECKING:
    from ketch.spec.image import Platform

_COUNTED = (Run, Transfer, Workdir)
_COMMON_IMAGES = ("alpine", "busybox", "centos", "debian", "golang", "ubuntu", "fedora")


class Conversion:
    """Plans one platform.

    Args:
        program: the Dockerfile.
        inputs: what stages may begin with.
        setting: what is the same for all of them.
    """

    def __init__(self, program: language.Stages, inputs: Inputs, setting: Setting) -> None:
        self.program = program
        self.inputs = inputs
        self.setting = setting
        self.stages = Stages()

    def target(self) -> Target:
        """Returns what the platform's image is."""
        self._declare()
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
        return self._finished(wanted, needed)

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

    def _declare(self) -> None:
        for declared in self.program.stages:
            begin = declared.begin
            try:
                stage = self._declared(declared)
            except DockerfileError as error:
                raise error.at(begin.place) from error.__cause__
            self.stages.add(stage)
            if stage.context:
                continue
            counted = sum(isinstance(each, _COUNTED) for each in declared.instructions)
            stage.total = counted + (stage.base != SCRATCH and stage.parent is None)

    def _declared(self, declared: language.Stage) -> Stage:
        setting, begin = self.setting, declared.begin
        base = setting.lexer.process(begin.base, setting.arguments)
        if not base.text:
            raise DockerfileError(f"base name ({begin.base}) should not be blank")
        used = {*base.used}
        wanted = None
        if begin.platform:
            wanted, more = self._wanted_platform(begin.platform)
            used |= more
        context = self.inputs.named(declared.name, wanted or setting.target)
        request = setting.request
        unwanted = {name.lower() for name in request.no_cache_filter}
        return Stage(
            name=declared.name,
            label=declared.label,
            place=begin.place,
            base=base.text,
            wanted=wanted,
            context=context if declared.name else "",
            ignore_cache=request.no_cache or declared.name in unwanted,
            used=used,
        )

    def _wanted_platform(self, text: str) -> "tuple[Platform, frozenset[str]]":
        names_known = self.setting.arguments
        try:
            found = self.setting.lexer.process(text, names_known)
        except DockerfileError as error:
            raise DockerfileError(
                f"failed to process arguments for platform {text}: {error.message}"
            ) from error
        hint = next(filter(None, (did_you_mean(name, names_known) for name in found.missing)), "")
        if not found.text:
            raise DockerfileError(f"empty platform value from expression {text}{hint}")
        try:
            return platforms.parse(found.text), found.used
        except InvalidArgumentError as error:
            raise DockerfileError(
                f"failed to parse platform {text}: {error.message}{hint}", error.hint
            ) from error

    def _resolve(self, wanted: Stage) -> set[Stage]:
        """Finds out what stages begin with, and which are needed; triggers may need more."""
        while True:
            needed = {*reachable(wanted)}
            for stage in self.stages.all:
                if stage in needed and stage.parent is None and not stage.resolved:
                    stage.resolved = True
                    self._begin(stage)
            more = False
            for stage in [*self.stages.all]:
                if stage in needed and not stage.triggers_read:
                    stage.triggers_read = True
                    more |= self._read_triggers(stage)
            if not more:
                return needed

    def _read_triggers(self, stage: Stage) -> bool:
        if stage.parent is not None:
            instructions = (command.instruction for command in stage.parent.commands)
            triggers = [each.trigger for each in instructions if isinstance(each, OnBuild)]
        elif stage.initial is not None and stage.state is None:
            triggers = stage.initial.image.config.pop("OnBuild", [])
        else:
            triggers = []
        return bool(triggers) and self.stages.trigger(stage, triggers)

    def _begin(self, stage: Stage) -> None:
        try:
            platform, beginning = self._beginning(stage)
        except DockerfileError as error:
            raise error.at(stage.place) from error.__cause__
        except KetchError as error:
            raise DockerfileError(error.message, error.hint, (stage.place,)) from error
        stage.initial = State(
            image=beginning.image or Image(platform, {}),
            platform=platform,
            root=beginning.root,
            source=beginning.source,
            environment=Environment({}, self.setting.allowance),
            steps=Steps(None, self.setting.allowance),
        )
        if stage.external or stage.context:
            stage.state = stage.initial

    def _beginning(self, stage: Stage) -> "tuple[Platform, Beginning]":
        setting, inputs = self.setting, self.inputs
        if stage.context:
            platform = stage.wanted or setting.target
            found = inputs.context(stage.context, platform)
            return (found.image.platform if found.image else platform), found
        if stage.base == SCRATCH:
            return setting.target, Beginning(inputs.scratch(), Image.empty(setting.target))
        platform = stage.wanted or setting.target
        name = base_name(stage.base)
        context = inputs.named(str(name), platform)
        if context:
            found = inputs.context(context, platform)
            image = found.image or Image.empty(platform)
            return platform, Beginning(found.root, image, found.source)
        return self._image(stage, name, platform)

    def _image(
        self, stage: Stage, name: Reference, platform: "Platform"
    ) -> "tuple[Platform, Beginning]":
        setting = self.setting
        try:
            resolved = self.inputs.resolved(str(name), platform)
        except KetchError as error:
            hint = did_you_mean(stage.base, [*self.stages.labels(), *_common_names()])
            raise DockerfileError(f"{stage.base}: {error.message}{hint}", error.hint) from error
        image = Image.of(resolved.config)
        if stage.wanted is None and not setting.explicit:
            platform = _detected(image.platform, platform, setting.build)
        shown = f"FROM {with_digest(name, resolved.digest)}"
        source = setting.vertices.one(
            ImageSource(
                name=names.counted(stage, shown, platform if setting.several else None),
                stage=stage.label,
                place=stage.place,
                platform=platforms.shown(platform),
                reference=str(name),
                digest=resolved.digest,
                config_digest=resolved.config_digest,
            )
        )
        return platform, Beginning(source, image, source)

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
            absolute=parent.absolute,
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


def _detected(image: "Platform", target: "Platform", build: "Platform") -> "Platform":
    """Returns the platform of a stage that asks for none: its image's, where that can be known."""
    for platform in (target, build):
        if platforms.same_machine(image, platform):
            return platform
    return target


def _asked_for(image: "Platform", target: "Platform") -> "Platform":
    """Returns the platform of an image that was made for one."""
    made: Platform = {"architecture": target["architecture"], "os": target["os"]}
    variant = target.get("variant", "")
    if not variant and platforms.same_machine(image, target):
        variant = image.get("variant", "")
    if variant:
        made["variant"] = variant
    return made


def _common_names() -> Iterator[str]:
    """Yields what a name of an image that is not there may have been meant to be."""
    for name in _COMMON_IMAGES:
        yield name
        yield f"{name}:latest"
