"""Stages as a Dockerfile declares them: their bases and platforms, with global arguments put in.

Source: github.com/moby/buildkit, frontend/dockerfile/dockerfile2llb/convert.go,
"buildDispatchStates".
"""

from typing import TYPE_CHECKING

from ketch.build.planning import platforms
from ketch.build.planning.inputs import Inputs
from ketch.build.planning.linking import Stages
from ketch.build.planning.setting import Setting
from ketch.build.planning.stages import Stage
from ketch.errors import InvalidArgumentError
from ketch.spec.dockerfile import checks
from ketch.spec.dockerfile import stages as language
from ketch.spec.dockerfile.errors import DockerfileError
from ketch.spec.dockerfile.instructions import From, Run, Transfer, Workdir
from ketch.spec.dockerfile.stages import SCRATCH
from ketch.spec.dockerfile.suggestions import did_you_mean

if TYPE_CHECKING:
    from ketch.spec.image import Platform

_COUNTED = (Run, Transfer, Workdir)
_HINTS_MAX = 10


def declare(setting: Setting, inputs: Inputs, program: language.Stages, stages: Stages) -> None:
    """Adds the stages of a Dockerfile, without their instructions.

    Raises:
        DockerfileError: a base or a platform is malformed.
    """
    for declared in program.stages:
        try:
            stage = _declared(setting, inputs, declared)
        except DockerfileError as error:
            raise error.at(declared.begin.place) from error.__cause__
        stages.add(stage)
        if not stage.context:
            counted = sum(isinstance(each, _COUNTED) for each in declared.instructions)
            stage.total = counted + (stage.base != SCRATCH and stage.parent is None)


def _declared(setting: Setting, inputs: Inputs, declared: language.Stage) -> Stage:
    begin = declared.begin
    base = setting.lexer.process(begin.base, setting.arguments)
    known = {*setting.arguments, *setting.declared}
    checks.check_base(setting.linter, begin, base.missing, known)
    if not base.text:
        raise DockerfileError(f"base name ({begin.base}) should not be blank")
    used = {*base.used}
    wanted = None
    if begin.platform:
        wanted, more = _platform(setting, begin)
        used |= more
    request = setting.request
    unwanted = {name.lower() for name in request.no_cache_filter}
    return Stage(
        name=declared.name,
        label=declared.label,
        place=begin.place,
        begin=begin,
        description=declared.description,
        base=base.text,
        wanted=wanted,
        context=inputs.named(declared.name, wanted or setting.target) if declared.name else "",
        ignore_cache=request.no_cache or declared.name in unwanted,
        declared={**setting.declared},
        used=used,
    )


def _platform(setting: Setting, begin: From) -> "tuple[Platform, frozenset[str]]":
    """Returns the platform that a FROM asks for, and the arguments in it."""
    text, known = begin.platform, setting.arguments
    try:
        found = setting.lexer.process(text, known)
    except DockerfileError as error:
        raise DockerfileError(
            f"failed to process arguments for platform {text}: {error.message}"
        ) from error
    checks.check_base(setting.linter, begin, found.missing, {*known, *setting.declared})
    hints = (did_you_mean(name, known) for name in sorted(found.missing)[:_HINTS_MAX])
    hint = next(filter(None, hints), "")
    if not found.text:
        raise DockerfileError(f"empty platform value from expression {text}{hint}")
    try:
        platform = platforms.parse(found.text)
    except InvalidArgumentError as error:
        raise DockerfileError(
            f"failed to parse platform {text}: {error.message}{hint}", error.hint
        ) from error
    parts = (platform["os"], platform["architecture"])
    checks.check_platform(setting.linter, begin, found, known.get("TARGETPLATFORM", ""), parts)
    return platform, found.used
