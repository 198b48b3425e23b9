"""From a Dockerfile and what was asked for to a plan.

As BuildKit goes about it (github.com/moby/buildkit, frontend/dockerfile/dockerfile2llb): global
arguments, stages, which of them are needed, what they begin with, triggers, then one instruction
after the other. Each platform is planned for itself; what comes out the same is one vertex.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from ketch.build.graph import Plan, Remark
from ketch.build.planning import arguments, dating, platforms
from ketch.build.planning.conversion import Conversion
from ketch.build.planning.dating import Dated
from ketch.build.planning.inputs import Inputs
from ketch.build.planning.resolver import Resolver
from ketch.build.planning.setting import Setting
from ketch.build.planning.stages import Allowance
from ketch.build.planning.vertices import Vertices
from ketch.build.request import Request
from ketch.errors import InvalidArgumentError
from ketch.spec import values
from ketch.spec.digits import signed
from ketch.spec.dockerfile import checks, lint, parsing
from ketch.spec.dockerfile import stages as language
from ketch.spec.dockerfile.errors import DockerfileError
from ketch.spec.dockerfile.expansion import Lexer
from ketch.spec.dockerfile.lint import Linter
from ketch.spec.ignore_patterns import IgnorePatterns

if TYPE_CHECKING:
    from ketch.spec.image import Platform

_EPOCH_MAX = 253_402_300_799  # the end of the year 9999, after which RFC 3339 has no dates

PLATFORMS_MAX = 64
"""How many platforms one build may be for."""


Ignored = Callable[[], IgnorePatterns | None]
"""Reads the ``.dockerignore`` of the main context; None where there is none."""


def plan(
    text: bytes,
    filename: str,
    request: Request,
    resolver: Resolver,
    ignored: Ignored | None = None,
    dated: Dated = lambda _: None,
) -> Plan:
    """Plans a build; nothing is run, read or written but what the last three of these ask for.

    Args:
        text: the Dockerfile.
        filename: what it is called in errors.
        request: what was asked for.
        resolver: who knows images.
        ignored: for the rule that what is copied is not left out.
        dated: for a ``SOURCE_DATE_EPOCH`` that names a context or a stage.

    Raises:
        DockerfileError: the Dockerfile, or what was asked for with it, cannot be built. It says
            where, and what BuildKit says.
    """
    if not text:
        raise DockerfileError("the Dockerfile cannot be empty")
    dockerfile = parsing.parse(text, filename)
    try:
        return Planner(language.read(dockerfile), request, resolver, ignored, dated).plan()
    except DockerfileError as error:
        raise error.at(source=dockerfile.source) from error.__cause__


class Planner:
    """Plans all platforms of a build.

    Args:
        program: the Dockerfile.
        request: what was asked for.
        resolver: who knows images.
        ignored: for the rule that what is copied is not left out.
        dated: for a ``SOURCE_DATE_EPOCH`` that names a context or a stage.

    Attributes:
        linter: what takes the rules that are broken.

    Raises:
        DockerfileError: what is said of rules is malformed.
    """

    def __init__(
        self,
        program: language.Stages,
        request: Request,
        resolver: Resolver,
        ignored: Ignored | None = None,
        dated: Dated = lambda _: None,
    ) -> None:
        self.program = program
        self.dated = dated
        self.ignored = ignored
        self.request = request
        self.overrides = arguments.given(request.build_args)
        self.vertices = Vertices()
        self.allowance = Allowance()
        self.inputs = Inputs(request.contexts, resolver, self.vertices)
        override = self.overrides.get(arguments.CHECK, "")
        self.linter = Linter(lint.options_of(program.dockerfile.source.text, override))

    def plan(self) -> Plan:
        """Returns the plan.

        Raises:
            DockerfileError: there is none.
        """
        conversions = self.conversions()
        targets = [conversion.target() for conversion in conversions]
        first = conversions[0]
        return Plan(
            targets,
            [_finding(finding) for finding in self.linter.findings],
            arguments.unused(self.overrides, first.declared()),
            epoch_s=first.setting.epoch_s,
            index=first.setting.several,
        )

    def conversions(self, *, everything: bool = False) -> list[Conversion]:
        """Returns what plans each platform; rules count on the first alone.

        Args:
            everything: whether stages are looked at that the target does not need.

        Raises:
            DockerfileError: what was asked for cannot be.
        """
        wanted = self._platforms()
        several = self._several(wanted)
        build = platforms.host()
        asked: list[Platform | None] = [*wanted] or [None]
        checks.check_file(self.linter, self.program)
        linters = [self.linter, *(Linter(lint.Options(skip_all=True)) for _ in asked[1:])]
        return [
            Conversion(
                self.program,
                self.inputs,
                self._setting(build, platform, linter, several=several),
                everything=everything,
            )
            for platform, linter in zip(asked, linters, strict=True)
        ]

    def _platforms(self) -> "list[Platform]":
        found: dict[str, Platform] = {}
        for text in self.request.platforms:
            try:
                platform = platforms.parse(text)
            except InvalidArgumentError as error:
                raise DockerfileError(
                    f"failed to parse target platform {text}: {error.message}", error.hint
                ) from error
            found[platforms.shown(platform)] = platform
        if len(found) > PLATFORMS_MAX:
            raise DockerfileError(f"more than {PLATFORMS_MAX} platforms")
        return [*found.values()]

    def _several(self, wanted: "list[Platform]") -> bool:
        text = self.overrides.get(arguments.MULTI_PLATFORM, "")
        if not text:
            return len(wanted) > 1
        try:
            several = values.boolean(text)
        except InvalidArgumentError as error:
            raise DockerfileError(f"invalid boolean value for multi-platform: {text}") from error
        if not several and len(wanted) > 1:
            raise DockerfileError(
                "conflicting config: returning multiple target platforms is not allowed"
            )
        return several

    def _setting(
        self, build: "Platform", target: "Platform | None", linter: Linter, *, several: bool
    ) -> Setting:
        lexer = Lexer(self.program.dockerfile.escape)
        stage = self.request.target or self.program.stages[-1].name
        defaults = arguments.defaults(build, target or build, stage, self.overrides)
        overrides, global_args = {**self.overrides}, self.program.global_args
        self._check_defaults(linter, defaults, lexer)
        found, declared = arguments.before_stages(global_args, defaults, overrides, lexer)
        epoch = overrides.get(arguments.EPOCH, found.get(arguments.EPOCH, ""))
        if epoch and signed(epoch) is None:
            dated = dating.source(epoch, self.program, self.inputs, overrides, found)
            time_s = None if dated is None else self.dated(dated)
            epoch = "" if time_s is None else str(time_s)
            for known in (overrides, found):
                if arguments.EPOCH in known:
                    known[arguments.EPOCH] = epoch
        epoch_s = _epoch(epoch)
        return Setting(
            request=self.request,
            overrides=overrides,
            arguments=found,
            declared=declared,
            lexer=lexer,
            vertices=self.vertices,
            allowance=self.allowance,
            main=self.inputs.main(),
            build=build,
            target=target or build,
            explicit=target is not None,
            several=several,
            linter=linter,
            ignored=self.ignored if linter is self.linter else None,
            epoch_s=epoch_s,
            hidden=arguments.proxies(overrides),
            hostname=overrides.get(arguments.HOSTNAME, ""),
            cache_namespace=overrides.get(arguments.CACHE_NAMESPACE, ""),
        )

    def _check_defaults(self, linter: Linter, defaults: dict[str, str], lexer: Lexer) -> None:
        """Looks whether bases are named where nobody gives arguments."""
        try:
            found, _ = arguments.before_stages(self.program.global_args, defaults, {}, lexer)
        except DockerfileError:
            return  # which the build meets as well
        checks.check_default_bases(linter, self.program, found)


def _finding(finding: lint.Finding) -> Remark:
    rule = finding.rule
    return Remark(rule.name, rule.description, rule.url, finding.message, finding.place)


def _epoch(text: str) -> int | None:
    if not text:
        return None
    found = signed(text)
    if found is None or not 0 <= found <= _EPOCH_MAX:
        raise DockerfileError(
            f"invalid SOURCE_DATE_EPOCH: {text}", "it is a number of seconds since 1970"
        )
    return found
