"""SOURCE_DATE_EPOCH where it names what has a time: a context, or a stage that is one download.

Source: github.com/moby/buildkit, frontend/dockerfile/dockerfile2llb/epoch.go.
"""

from collections.abc import Callable, Mapping

from ketch.build.graph import ContextSource, GitSource, HttpSource
from ketch.build.planning import arguments, copying, platforms
from ketch.build.planning.inputs import Inputs
from ketch.build.request import MAIN_CONTEXT
from ketch.spec.dockerfile import stages as language
from ketch.spec.dockerfile.errors import DockerfileError
from ketch.spec.dockerfile.expansion import Expander, Lexer
from ketch.spec.dockerfile.instructions import Add, Arg, expand

Dateable = ContextSource | GitSource | HttpSource

Dated = Callable[[Dateable], int | None]
"""Tells since when a source is as it is, in seconds since 1970; None where nobody knows."""

_NAME = "[internal] resolve SOURCE_DATE_EPOCH"


def source(
    name: str,
    program: language.Stages,
    inputs: Inputs,
    overrides: Mapping[str, str],
    values: Mapping[str, str],
) -> Dateable | None:
    """Returns what a name stands for whose time is asked for, None where that has none.

    Args:
        name: ``context``, a named context or a stage.
        program: the Dockerfile.
        inputs: the contexts.
        overrides: the build arguments.
        values: what global arguments come to.

    Raises:
        DockerfileError: there is nothing of that name, or a stage that is more than a download.
    """
    if name == MAIN_CONTEXT:
        return ContextSource(name=_NAME, context=MAIN_CONTEXT)
    if key := inputs.named(name, platforms.host()):
        return ContextSource(name=_NAME, context=key)
    known = {one: value for one, value in values.items() if one != arguments.EPOCH}
    for stage in program.stages:
        if stage.name == name.lower():
            try:
                return _download(stage, known, overrides, program.dockerfile.escape)
            except DockerfileError as error:
                raise error.at(stage.begin.place) from None
    raise DockerfileError(
        f"invalid {arguments.EPOCH}: {name}",
        f"it is a number of seconds since 1970, {MAIN_CONTEXT}, or the name of a context or stage",
    )


def _download(
    stage: language.Stage, values: Mapping[str, str], overrides: Mapping[str, str], escape: str
) -> Dateable:
    """Returns the only thing that a stage is made of."""
    lexer = Lexer(escape)
    if lexer.process(stage.begin.base, values).text != language.SCRATCH:
        raise DockerfileError(f"{arguments.EPOCH} stage must use FROM scratch")
    found: Dateable | None = None
    for instruction in stage.instructions:
        if isinstance(instruction, Arg):
            values, _ = arguments.before_stages([instruction], values, overrides, lexer)
        elif not isinstance(instruction, Add):
            raise DockerfileError(
                f"{arguments.EPOCH} stage does not meet source-only requirements: unsupported "
                f"{instruction.name} instruction"
            )
        elif found is not None:
            found = None
            break
        else:
            found = _added(expand(instruction, Expander(values, escape)))
    if found is None:
        raise DockerfileError(f"{arguments.EPOCH} stage must contain exactly one remote ADD")
    return found


def _added(this: Add) -> Dateable:
    if this.contents or len(this.sources) != 1:
        raise DockerfileError(f"{arguments.EPOCH} stage must contain exactly one remote ADD source")
    found = copying.remote(this, this.sources[0], _NAME)
    if found is None:
        raise DockerfileError(f"{arguments.EPOCH} stage source must be a single HTTP(S) or Git ADD")
    return found
