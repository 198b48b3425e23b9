"""What vertices are called: ``[linux/amd64->arm64 build 2/5] RUN make``.

Source: prefixCommand in github.com/moby/buildkit, frontend/dockerfile/dockerfile2llb/convert.go.
"""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

from ketch.build.planning import platforms
from ketch.build.planning.stages import Stage
from ketch.errors import InvalidArgumentError

if TYPE_CHECKING:
    from ketch.spec.image import Platform


def counted(
    stage: Stage,
    text: str,
    platform: "Platform | None" = None,
    environment: Mapping[str, str] | None = None,
    *,
    triggered: bool = False,
) -> str:
    """Returns the name of a stage's next vertex.

    Args:
        stage: it; what it counts goes on by one.
        text: the instruction.
        platform: what it runs on, where names are to tell.
        environment: variables, of which those of the target platform tell what it is for.
        triggered: whether it comes from ONBUILD.
    """
    if not stage.total:
        return text
    stage.position += 1
    shown = ""
    if platform is not None:
        shown = f"{platforms.shown(platform)}{_crossed(platform, environment or {})} "
    if stage.label:
        shown += f"{stage.label} "
    width = 1 + int(math.log10(stage.total))
    prefix = f"[{shown}{stage.position:{width}}/{stage.total}] "
    return f"{prefix}ONBUILD {text}" if triggered else prefix + text


def _crossed(platform: "Platform", environment: Mapping[str, str]) -> str:
    """Returns ``->arm64`` where a stage makes something for another platform than its own."""
    target = _target(platform, environment)
    if target is None or platforms.same_machine(target, platform):
        return ""
    if target["os"] != platform["os"]:
        return f"->{platforms.shown(target)}"
    return f"->{platforms.shown(target).partition('/')[2]}"


def _target(platform: "Platform", environment: Mapping[str, str]) -> "Platform | None":
    if "TARGETPLATFORM" in environment:
        try:
            return platforms.parse(environment["TARGETPLATFORM"])
        except InvalidArgumentError:
            pass
    names = ("TARGETOS", "TARGETARCH", "TARGETVARIANT")
    system, architecture, variant = (environment.get(name, "") for name in names)
    if not any(name in environment for name in names):
        return None
    made: Platform = {
        "architecture": architecture or platform["architecture"],
        "os": system or platform["os"],
    }
    if variant:
        made["variant"] = variant
    return platforms.normal(made)
