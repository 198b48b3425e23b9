"""What each stage begins with: nothing, an image, or a context in the place of one.

Source: github.com/moby/buildkit, frontend/dockerfile/dockerfile2llb/convert.go,
"resolveBaseImage".
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ketch.build.graph import ImageSource
from ketch.build.planning import names, platforms
from ketch.build.planning.image import Image
from ketch.build.planning.inputs import Beginning, Inputs, base_name, with_digest
from ketch.build.planning.linking import Stages
from ketch.build.planning.setting import Setting
from ketch.build.planning.stages import Environment, Stage, State, Steps
from ketch.errors import KetchError
from ketch.spec.dockerfile import checks
from ketch.spec.dockerfile.errors import DockerfileError
from ketch.spec.dockerfile.stages import SCRATCH
from ketch.spec.dockerfile.suggestions import did_you_mean

if TYPE_CHECKING:
    from ketch.spec.image import Platform

_COMMON_IMAGES = ("alpine", "busybox", "centos", "debian", "golang", "ubuntu", "fedora")


def begin(setting: Setting, inputs: Inputs, stages: Stages, stage: Stage) -> None:
    """Gives a stage that builds on no other one what it begins with.

    Raises:
        DockerfileError: there is no such image.
    """
    try:
        platform, found = _beginning(setting, inputs, stages, stage)
    except DockerfileError as error:
        raise error.at(stage.place) from error.__cause__
    except KetchError as error:
        raise DockerfileError(error.message, error.hint, (stage.place,)) from error
    stage.initial = State(
        image=found.image or Image(platform, {}),
        platform=platform,
        root=found.root,
        source=found.source,
        environment=Environment({}, setting.allowance),
        steps=Steps(None, setting.allowance),
    )
    if stage.external or stage.context:
        stage.state = stage.initial


def _beginning(
    setting: Setting, inputs: Inputs, stages: Stages, stage: Stage
) -> "tuple[Platform, Beginning]":
    platform = stage.wanted or setting.target
    if stage.context:
        found = inputs.context(stage.context, platform)
        return (found.image.platform if found.image else platform), found
    if stage.base == SCRATCH:
        return setting.target, Beginning(inputs.scratch(), Image.empty(setting.target))
    name = base_name(stage.base)
    context = inputs.named(str(name), platform)
    if context:
        found = inputs.context(context, platform)
        image = found.image or Image.empty(platform)
        return platform, Beginning(found.root, image, found.source)
    try:
        resolved = inputs.resolved(str(name), platform)
    except KetchError as error:
        hint = did_you_mean(stage.base, [*stages.labels(), *_common_names()])
        raise DockerfileError(f"{stage.base}: {error.message}{hint}", error.hint) from error
    image = Image.of(resolved.config)
    if stage.wanted is None and not setting.explicit:
        platform = _detected(image.platform, platform, setting.build)
    _check(setting, stage, image.platform, platform)
    source = setting.vertices.one(
        ImageSource(
            name=_name(setting, stage, with_digest(name, resolved.digest), platform),
            stage=stage.label,
            place=stage.place,
            platform=platforms.shown(platform),
            reference=str(name),
            digest=resolved.digest,
            config_digest=resolved.config_digest,
        )
    )
    return platform, Beginning(source, image, source)


def _name(setting: Setting, stage: Stage, shown: str, platform: "Platform") -> str:
    return names.counted(stage, f"FROM {shown}", platform if setting.several else None)


def _check(setting: Setting, stage: Stage, actual: "Platform", expected: "Platform") -> None:
    if not platforms.same_machine(actual, expected):
        checks.check_base_image(
            setting.linter,
            stage.place,
            stage.base,
            platforms.shown(platforms.normal(actual)),
            platforms.shown(expected),
            stage.begin.comments if stage.begin else (),
        )


def _detected(image: "Platform", target: "Platform", build: "Platform") -> "Platform":
    """Returns the platform of a stage that asks for none: its image's, where that can be known."""
    for platform in (target, build):
        if platforms.same_machine(image, platform):
            return platform
    return target


def _common_names() -> Iterator[str]:
    """Yields what a name of an image that is not there may have been meant to be."""
    for name in _COMMON_IMAGES:
        yield name
        yield f"{name}:latest"
