"""Build arguments: those that are always there, those before the first FROM, and which are known.

Source: github.com/moby/buildkit, frontend/dockerfile/dockerfile2llb: convert.go (buildMetaArgs),
platform.go (defaultArgs).
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from ketch.build.planning import platforms
from ketch.dataclass import dataclass
from ketch.spec.dockerfile.errors import DockerfileError, Place
from ketch.spec.dockerfile.expansion import Lexer
from ketch.spec.dockerfile.instructions import Arg, Variable

if TYPE_CHECKING:
    from ketch.spec.image import Platform

CACHE_NAMESPACE = "BUILDKIT_CACHE_MOUNT_NS"
CHECK = "BUILDKIT_DOCKERFILE_CHECK"
EPOCH = "SOURCE_DATE_EPOCH"
HOSTNAME = "BUILDKIT_SANDBOX_HOSTNAME"
MULTI_PLATFORM = "BUILDKIT_MULTI_PLATFORM"
SCAN_CONTEXT = "BUILDKIT_SBOM_SCAN_CONTEXT"
SCAN_STAGE = "BUILDKIT_SBOM_SCAN_STAGE"

_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
_BUILTIN = {*_PROXIES, *map(str.lower, _PROXIES), EPOCH}


@dataclass(frozen=True)
class Declared:
    """An argument that the Dockerfile declares, for those who ask what it takes.

    Attributes:
        variable: as it is declared.
        value: what it comes to, empty where it has none.
        place: where it is declared.
        needs: names of arguments that its default is made of.
    """

    variable: Variable
    value: str
    place: Place
    needs: frozenset[str] = frozenset()


def given(arguments: Mapping[str, str | None]) -> dict[str, str]:
    """Returns the build arguments that have a value."""
    return {name: value for name, value in arguments.items() if value is not None}


def defaults(
    build: "Platform", target: "Platform", stage: str, overrides: Mapping[str, str]
) -> dict[str, str]:
    """Returns what is there before the first line: platforms, and the target stage's name."""
    found: dict[str, str] = {}
    for prefix, platform in (("BUILD", build), ("TARGET", target)):
        found |= {
            f"{prefix}PLATFORM": platforms.shown(platform),
            f"{prefix}OS": platform["os"],
            f"{prefix}OSVERSION": "",
            f"{prefix}ARCH": platform["architecture"],
            f"{prefix}VARIANT": platform.get("variant", ""),
        }
    found["TARGETSTAGE"] = stage or "default"
    return {name: overrides.get(name, value) for name, value in found.items()}


def before_stages(
    instructions: Iterable[Arg],
    environment: Mapping[str, str],
    overrides: Mapping[str, str],
    lexer: Lexer,
) -> tuple[dict[str, str], dict[str, Declared]]:
    """Evaluates the ARGs before the first FROM.

    Args:
        instructions: those ARGs.
        environment: what is there before them.
        overrides: the build arguments, which win.
        lexer: how their defaults are read.

    Returns:
        All values, and what was declared.

    Raises:
        DockerfileError: a default is malformed.
    """
    values = dict(environment)
    declared: dict[str, Declared] = {}
    for instruction in instructions:
        for variable in instruction.variables:
            name, value = variable.name, overrides.get(variable.name)
            needs: frozenset[str] = frozenset()
            if value is None and variable.default is not None:
                try:
                    expanded = lexer.process(variable.default, values)
                except DockerfileError as error:
                    raise error.at(instruction.place) from None
                value, needs = expanded.text, expanded.used - {name}
                if name in expanded.used and name in declared:
                    needs |= declared[name].needs
            if value is not None:
                values[name] = value
            declared[name] = Declared(variable, value or "", instruction.place, needs)
    return values, declared


def proxies(overrides: Mapping[str, str]) -> tuple[str, ...]:
    """Returns the proxies that are given to all programs, and left out of all records."""
    found: dict[str, str] = {}
    for name, value in sorted(overrides.items()):
        if name.upper() in _PROXIES and value:
            found |= {name.upper(): value, name.lower(): value}
    return tuple(f"{name}={value}" for name, value in found.items())


def unused(overrides: Mapping[str, str], declared: Iterable[str]) -> list[str]:
    """Returns the build arguments that nothing in the Dockerfile declares, nor anybody knows."""
    known = {*_BUILTIN, *declared}
    return sorted(
        name for name in overrides if name not in known and not name.startswith("BUILDKIT_")
    )
