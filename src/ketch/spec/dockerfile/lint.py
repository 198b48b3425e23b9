"""Which rules count, and what was found.

Source: github.com/moby/buildkit, frontend/dockerfile/linter/linter.go.
"""

from typing import TYPE_CHECKING

from ketch.dataclass import dataclass, field
from ketch.errors import InvalidArgumentError
from ketch.spec import values
from ketch.spec.dockerfile import parsing
from ketch.spec.dockerfile.errors import DockerfileError, Place
from ketch.spec.values import quoted

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ketch.spec.dockerfile.rules import Rule


@dataclass(frozen=True)
class Options:
    """Which rules count.

    Attributes:
        skip_all: none but the experimental ones that are asked for.
        skipped: names of rules that do not.
        experimental_all: all experimental ones too.
        experimental: names of experimental ones that do.
        error: whether a broken rule is an error in the end.
    """

    skip_all: bool = False
    skipped: frozenset[str] = frozenset()
    experimental_all: bool = False
    experimental: frozenset[str] = frozenset()
    error: bool = False

    def wants(self, rule: "Rule") -> bool:
        """Whether a rule counts."""
        if rule.experimental:
            return self.experimental_all or rule.name in self.experimental
        return not self.skip_all and rule.name not in self.skipped


def options(text: str) -> Options:
    """Reads ``skip=A,B;experimental=C;error=true``, of ``# check=``; ``all`` stands for all rules.

    Raises:
        DockerfileError: it is malformed.
    """
    skipped = experimental = frozenset[str]()
    error = False
    for part in text.strip().split(";", 2) if text.strip() else ():
        name, equals, value = part.partition("=")
        name, value = name.strip(), value.strip()
        if not equals or name not in {"skip", "experimental", "error"}:
            raise DockerfileError(f"invalid check option {quoted(name if equals else part)}")
        names = frozenset(each.strip() for each in value.split(","))
        if name == "skip":
            skipped = names
        elif name == "experimental":
            experimental = names
        else:
            error = _truth(part, value)
    return Options(
        skipped == {"all"}, skipped, experimental == {"all"}, experimental, error
    )  # fmt: skip


def options_of(content: bytes, override: str = "") -> Options:
    """Returns the options of a Dockerfile.

    Args:
        content: its bytes, whose ``# check=`` counts.
        override: what counts in its place: the build argument BUILDKIT_DOCKERFILE_CHECK.

    Raises:
        DockerfileError: they are malformed.
    """
    try:
        return options(override or parsing.directive(content, "check"))
    except DockerfileError as error:
        raise DockerfileError(f"failed to parse check options: {error.message}") from error


@dataclass(frozen=True)
class Finding:
    """A broken rule.

    Attributes:
        rule: which one.
        message: what is wrong.
        place: where.
    """

    rule: "Rule"
    message: str
    place: Place

    @property
    def short(self) -> str:
        """It on one line, as builds show it."""
        return f"{self.rule.name}: {self.message} (line {self.place.first})"


@dataclass
class Linter:
    """Collects findings.

    Attributes:
        options: which rules count.
        findings: what was found, in the order of finding.
    """

    options: Options = field(default_factory=Options)
    findings: list[Finding] = field(default_factory=list)

    def report(
        self,
        rule: "Rule",
        place: Place,
        *facts: str,
        comments: "Iterable[str]" = (),
        more: str = "",
    ) -> None:
        """Notes a broken rule, if it counts.

        Args:
            rule: the rule.
            place: where it is broken.
            facts: what goes into its message.
            comments: those before the instruction; a ``check=`` among them counts here too.
            more: what is added to the message.
        """
        if rule.experimental:
            wanted = self.options.wants(rule) or _options_among(comments).wants(rule)
        else:
            wanted = self.options.wants(rule) and _options_among(comments).wants(rule)
        if wanted:
            self.findings.append(Finding(rule, rule.message.format(*facts) + more, place))

    def error(self) -> DockerfileError | None:
        """Returns the error that broken rules are, None where they are none or not wanted so."""
        if not self.options.error or not self.findings:
            return None
        names = sorted({finding.rule.name for finding in self.findings})
        return DockerfileError(
            f"lint violation found for rules: {', '.join(names)}",
            places=sorted({finding.place for finding in self.findings}),
        )


def directive_in(comment: str) -> tuple[str, str] | None:
    """Returns name and value of the directive that a comment is, None where it is none."""
    return parsing.directive_in(f"#{comment}")


def _options_among(comments: "Iterable[str]") -> Options:
    """Returns the options of the first ``check=`` in comments; malformed ones are none."""
    for comment in comments:
        name, value = directive_in(comment) or ("", "")
        if name == "check":
            try:
                return options(value.partition(" ")[0])
            except DockerfileError:
                return Options()
    return Options()


def _truth(part: str, value: str) -> bool:
    try:
        return values.boolean(value)
    except InvalidArgumentError as error:
        raise DockerfileError(
            f"failed to parse check option {quoted(part)}: {error.message}"
        ) from error
