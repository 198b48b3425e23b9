"""What all stages of one platform are planned with."""

from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING

from ketch.build.graph import Vertex
from ketch.build.planning import names
from ketch.build.planning.arguments import Declared
from ketch.build.planning.stages import Allowance, Command, Stage, State
from ketch.build.planning.vertices import Vertices
from ketch.build.request import Request
from ketch.dataclass import dataclass
from ketch.spec.dockerfile.errors import DockerfileError
from ketch.spec.dockerfile.expansion import Lexer
from ketch.spec.dockerfile.instructions import Instruction, Transfer
from ketch.spec.dockerfile.lint import Linter
from ketch.spec.ignore_patterns import IgnorePatterns

if TYPE_CHECKING:
    from ketch.spec.image import Platform

_NAME = 8  # times as much as other text: to put variables in takes its time

FINDINGS_MAX = 1_000
"""How many broken rules are looked for."""


@dataclass(frozen=True)
class Setting:
    """What is the same for all stages of a platform.

    Attributes:
        request: what was asked for.
        overrides: the build arguments that have a value.
        arguments: values before the first FROM.
        declared: the arguments that are declared there.
        lexer: how the Dockerfile's words are read.
        vertices: what is one already.
        allowance: how much more the plan may come to.
        main: the main context.
        build: the platform that the build runs on.
        target: the platform that it is for.
        explicit: whether that one was asked for.
        linter: takes what breaks a rule.
        ignored: reads the main context's ``.dockerignore``, None where there is none to be had.
        several: whether there are others, so that names tell which one they are about.
        epoch_s: the time that everything new is given, None for now.
        hidden: proxies, as ``NAME=value``.
        hostname: of all steps, empty for the default.
        cache_namespace: what ids of cache mounts are put into, may be empty.
    """

    request: Request
    overrides: dict[str, str]
    arguments: dict[str, str]
    declared: dict[str, Declared]
    lexer: Lexer
    vertices: Vertices
    allowance: Allowance
    main: Vertex
    build: "Platform"
    target: "Platform"
    explicit: bool
    several: bool
    linter: Linter
    ignored: Callable[[], IgnorePatterns | None] | None = None
    epoch_s: int | None = None
    hidden: tuple[str, ...] = ()
    hostname: str = ""
    cache_namespace: str = ""

    def expanded_name(
        self, text: str, environment: Mapping[str, str], *, quotes: bool = False
    ) -> str:
        """Returns an instruction's line with variables in it, for people; as it is where it is odd.

        Args:
            text: the line.
            environment: the variables.
            quotes: whether quotes stay, and variables that are not set: as a shell's line is shown.
        """
        lexer = Lexer(self.lexer.escape, keep_quotes=quotes, keep_missing=quotes)
        try:
            shown = lexer.process(text, environment).text
        except DockerfileError:
            shown = text
        keyword, blank, rest = shown.partition(" ")
        self.allowance.take(len(shown) * _NAME)
        return f"{keyword.upper()}{blank}{rest}"


@dataclass(frozen=True)
class Turn:
    """An instruction's turn.

    Attributes:
        setting: what is the same for all.
        stage: the stage that it belongs to.
        state: what that has come to before it.
        command: the instruction as it is written.
    """

    setting: Setting
    stage: Stage
    state: State
    command: Command

    def named(self, text: str) -> str:
        """Returns the name of the vertex that the instruction makes."""
        return names.counted(
            self.stage,
            text,
            self.state.platform if self.setting.several else None,
            self.state.environment,
            triggered=self.command.triggered,
        )

    def check(self, instruction: Instruction, missing: Collection[str]) -> None:
        """Looks for rules that the instruction breaks.

        Args:
            instruction: it, expanded.
            missing: variables that it names and that are not set.
        """
        setting, checks = self.setting, self.stage.checks
        room = FINDINGS_MAX - len(setting.linter.findings)
        if checks is None or room <= 0:
            return
        if missing:
            declared = {name for name, _ in self.state.arguments}
            some = sorted(missing)[:room]
            checks.undefined(instruction, some, declared, self.state.environment)
        ignored = None
        if isinstance(instruction, Transfer) and not self.command.sources and setting.ignored:
            ignored = setting.ignored()
        shell = bool(self.state.image.config.get("Shell"))
        checks.instruction(instruction, shell_given=shell, ignored=ignored)
