"""Which rules a Dockerfile breaks.

What the text alone tells is found by ``check_file``. What takes evaluation is found on the way, by
whoever evaluates: he asks ``check_base`` and ``check_platform`` of each FROM, and a ``StageChecks``
of each instruction of a stage. Source: github.com/moby/buildkit, frontend/dockerfile:
instructions/parse.go, dockerfile2llb/validations.go.
"""

import posixpath
import re
from typing import TYPE_CHECKING

from ketch.errors import InvalidArgumentError
from ketch.spec import git_urls, reference
from ketch.spec.dockerfile import exposing, lint, rules
from ketch.spec.dockerfile.errors import DockerfileError, Place
from ketch.spec.dockerfile.expansion import Lexer
from ketch.spec.dockerfile.instructions import (
    Add,
    Arg,
    Cmd,
    Copy,
    Entrypoint,
    Env,
    Expose,
    From,
    Healthcheck,
    Label,
    Maintainer,
    Transfer,
    Workdir,
)
from ketch.spec.dockerfile.suggestions import suggestion
from ketch.spec.values import quoted

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from ketch.spec.dockerfile.expansion import Expanded
    from ketch.spec.dockerfile.instructions import Instruction
    from ketch.spec.dockerfile.lint import Linter
    from ketch.spec.dockerfile.rules import Rule
    from ketch.spec.dockerfile.stages import Stages
    from ketch.spec.ignore_patterns import IgnorePatterns

UNSEEN_ARGUMENTS = frozenset({"BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"})
"""Arguments that steer the build and are no variables."""

_RESERVED = ("context", "scratch")
_SECRET = re.compile(
    "(?:_|^)(?:apikey|auth|credential|credentials|key|password|pword|passwd|secret|token)(?:_|$)",
    re.IGNORECASE,
)
_PUBLIC = re.compile("(?:_|^)(?:public|file|version)(?:_|$)", re.IGNORECASE)


def check_file(linter: "Linter", stages: "Stages") -> None:
    """Checks what a Dockerfile's text alone tells."""
    for place in stages.dockerfile.empty_continuations:
        linter.report(rules.NO_EMPTY_CONTINUATION, place)
    for arg in stages.global_args:
        _check_description(linter, arg)
    for stage in stages.stages:
        _check_from(linter, stage.begin)
        for instruction in stage.instructions:
            if isinstance(instruction, Maintainer):
                linter.report(
                    rules.MAINTAINER_DEPRECATED, instruction.place, comments=instruction.comments
                )
            elif isinstance(instruction, Arg):
                _check_description(linter, instruction)
    _check_stage_names(linter, stages)
    _check_casing(linter, stages)


def check_base(
    linter: "Linter", begin: From, missing: "Iterable[str]", declared: "Collection[str]"
) -> None:
    """Checks that a FROM names no arguments that there are not.

    Args:
        linter: takes the findings.
        begin: the FROM.
        missing: names in its base, or in its platform, that have no value.
        declared: names of global ARGs, with and without a value, and of predefined arguments.
    """
    for name in sorted(set(missing) - set(declared)):
        linter.report(
            rules.UNDEFINED_ARG_IN_FROM, begin.place, name, comments=begin.comments,
            more=_did_you_mean("", name, declared),
        )  # fmt: skip


def check_platform(
    linter: "Linter", begin: From, expanded: "Expanded", target: str, parts: tuple[str, str] | None
) -> None:
    """Checks the ``--platform`` of a FROM.

    Args:
        linter: takes the findings.
        begin: the FROM.
        expanded: what its platform came to.
        target: the platform that is built for: TARGETPLATFORM.
        parts: the platform's system and architecture, None where it is malformed.
    """
    if expanded.used == {"TARGETPLATFORM"} and not expanded.missing and expanded.text == target:
        linter.report(
            rules.REDUNDANT_TARGET_PLATFORM, begin.place, begin.platform, comments=begin.comments
        )
    constant = not expanded.used and not expanded.missing
    if constant and parts and not any(part in begin.stage for part in parts if part):
        linter.report(
            rules.FROM_PLATFORM_FLAG_CONST_DISALLOWED, begin.place, quoted(expanded.text),
            comments=begin.comments,
        )  # fmt: skip


def check_default_bases(linter: "Linter", stages: "Stages", defaults: "Mapping[str, str]") -> None:
    """Checks that each FROM has a base where nobody gives arguments.

    Args:
        linter: takes the findings.
        stages: the Dockerfile's.
        defaults: values before the first FROM where no arguments are given.
    """
    for stage in stages.stages:
        try:
            base = Lexer(stages.dockerfile.escape).process(stage.begin.base, defaults).text
        except DockerfileError:
            return  # which the build will meet
        try:
            reference.parse(base)
        except InvalidArgumentError:
            linter.report(
                rules.INVALID_DEFAULT_ARG_IN_FROM, stage.begin.place, stage.begin.base,
                comments=stage.begin.comments,
            )  # fmt: skip


def check_base_image(
    linter: "Linter",
    place: Place,
    base: str,
    actual: str,
    expected: str,
    comments: "Iterable[str]" = (),
) -> None:
    """Notes that an image is for another platform.

    Args:
        linter: takes the finding.
        place: of the instruction that names it.
        base: the image.
        actual: what the image is for, as ``linux/amd64``.
        expected: what was wanted.
        comments: those before the instruction.
    """
    linter.report(
        rules.INVALID_BASE_IMAGE_PLATFORM, place, base, quoted(actual), quoted(expected),
        comments=comments,
    )  # fmt: skip


class StageChecks:
    """Checks the instructions of a stage in their order.

    Args:
        linter: takes the findings.
        base: the checks of the stage that this one goes on from, None where it is an image.
    """

    def __init__(self, linter: "Linter", base: "StageChecks | None" = None) -> None:
        self._linter = linter
        self._workdir_given: bool = base is not None and base._workdir_given
        self._last: dict[type, Place] = {}

    def undefined(
        self,
        instruction: "Instruction",
        missing: "Iterable[str]",
        arguments: "Collection[str]",
        variables: "Collection[str]",
    ) -> None:
        """Checks the variables that an instruction names.

        Args:
            instruction: the instruction.
            missing: those that have no value.
            arguments: names of the ARGs before it; they may be without one.
            variables: names of what has a value, for suggestions.
        """
        for name in sorted(set(missing) - set(arguments) - UNSEEN_ARGUMENTS):
            more = _did_you_mean("$", name, variables)
            self._report(rules.UNDEFINED_VAR, instruction, name, more=more)

    def instruction(
        self,
        instruction: "Instruction",
        *,
        shell_given: bool = False,
        ignored: "IgnorePatterns | None" = None,
    ) -> None:
        """Checks an instruction whose variables are in.

        Args:
            instruction: the instruction.
            shell_given: whether there was a SHELL, in the stage or its base.
            ignored: the context's ``.dockerignore``, None where there is none.

        Raises:
            DockerfileError: an EXPOSE is malformed.
        """
        if isinstance(instruction, Env | Label):
            self._pairs(instruction)
        elif isinstance(instruction, Arg):
            for variable in instruction.variables:
                self._secret(instruction, "ARG", variable.name)
        elif isinstance(instruction, Workdir):
            if not self._workdir_given and not instruction.path.startswith("/"):
                self._report(rules.WORKDIR_RELATIVE_PATH, instruction, quoted(instruction.path))
            self._workdir_given = True
        elif isinstance(instruction, Cmd | Entrypoint | Healthcheck):
            self._once(instruction)
            if isinstance(instruction, Cmd | Entrypoint) and not shell_given:
                self._form(instruction)
        elif isinstance(instruction, Expose):
            self._expose(instruction)
        elif isinstance(instruction, Transfer) and ignored is not None:
            self._transfer(instruction, ignored)

    def _report(
        self, rule: "Rule", instruction: "Instruction", *facts: str, more: str = ""
    ) -> None:
        comments = instruction.comments
        self._linter.report(rule, instruction.place, *facts, comments=comments, more=more)

    def _pairs(self, instruction: Env | Label) -> None:
        for pair in instruction.pairs:
            if pair.legacy:
                self._report(rules.LEGACY_KEY_VALUE_FORMAT, instruction, instruction.keyword)
            if isinstance(instruction, Env):
                self._secret(instruction, "ENV", pair.name)

    def _secret(self, instruction: "Instruction", kind: str, name: str) -> None:
        if _SECRET.search(name) and not _PUBLIC.search(name):
            self._report(rules.SECRETS_USED_IN_ARG_OR_ENV, instruction, kind, quoted(name))

    def _once(self, instruction: "Instruction") -> None:
        before = self._last.get(type(instruction))
        if before is not None:
            # The one before is to blame: it counts for nothing.
            self._linter.report(
                rules.MULTIPLE_INSTRUCTIONS_DISALLOWED, before, instruction.keyword,
                comments=instruction.comments,
            )  # fmt: skip
        self._last[type(instruction)] = instruction.place

    def _form(self, instruction: Cmd | Entrypoint) -> None:
        if instruction.command.shell:
            self._report(rules.JSON_ARGS_RECOMMENDED, instruction, instruction.keyword)

    def _expose(self, instruction: Expose) -> None:
        try:
            found = exposing.read(instruction.ports)
        except DockerfileError as error:
            error.at(instruction.place)
            raise
        for each in found:
            if each.protocol != each.protocol.lower():
                self._report(rules.EXPOSE_PROTO_CASING, instruction, each.word)
            if each.mapped:
                self._report(rules.EXPOSE_INVALID_FORMAT, instruction, each.word)

    def _transfer(self, instruction: Transfer, ignored: "IgnorePatterns") -> None:
        # With exceptions it is too hard to say what is left of a directory.
        if ignored.has_exceptions or (isinstance(instruction, Copy) and instruction.source_stage):
            return
        verb = "Add" if isinstance(instruction, Add) else "Copy"
        for source in instruction.sources:
            if _is_remote(source):
                continue
            path = posixpath.normpath(source)
            whole = path in {".", "/"}
            if whole and not {"*", "**", "**/*"} & {*ignored.texts}:
                continue
            if ignored.matches(path):
                self._report(rules.COPY_IGNORED_FILE, instruction, verb, quoted(path))


def _is_remote(source: str) -> bool:
    if source.startswith(("http://", "https://")):
        return True
    try:
        found = git_urls.parse(source)
    except InvalidArgumentError:
        return True
    return found is not None and not found.like_a_path


def _check_from(linter: "Linter", begin: From) -> None:
    if begin.given_stage != begin.given_stage.lower():
        linter.report(
            rules.STAGE_NAME_CASING, begin.place, begin.given_stage, comments=begin.comments
        )
    lower = begin.keyword == begin.keyword.lower()
    wanted = begin.given_as.lower() if lower else begin.given_as.upper()
    # A keyword in mixed case is another rule's business.
    if begin.given_as != wanted and (lower or begin.keyword == begin.keyword.upper()):
        linter.report(
            rules.FROM_AS_CASING, begin.place, begin.given_as, begin.keyword,
            comments=begin.comments,
        )  # fmt: skip
    _check_description(linter, begin)


def _check_description(linter: "Linter", instruction: From | Arg) -> None:
    if isinstance(instruction, From):
        names = [instruction.stage] if instruction.stage else []
    else:
        names = [variable.name for variable in instruction.variables]
    comments = [each for each in instruction.comments if lint.directive_in(each) is None]
    if comments and names and comments[-1].split(" ")[0] not in names:
        linter.report(
            rules.INVALID_DEFINITION_DESCRIPTION, instruction.place, instruction.name,
            names[0] if len(names) == 1 else "<arg_key>", comments=instruction.comments,
        )  # fmt: skip


def _check_stage_names(linter: "Linter", stages: "Stages") -> None:
    seen: set[str] = set()
    for stage in stages.stages:
        name, begin = stage.name, stage.begin
        if name in _RESERVED:
            linter.report(
                rules.RESERVED_STAGE_NAME, begin.place, quoted(name), comments=begin.comments
            )
        if name in seen:
            linter.report(
                rules.DUPLICATE_STAGE_NAME, begin.place, quoted(name), comments=begin.comments
            )
        seen |= {name} - {""}


def _check_casing(linter: "Linter", stages: "Stages") -> None:
    found = [
        instruction for stage in stages.stages for instruction in (stage.begin, *stage.instructions)
    ]
    lower = sum(each.keyword == each.keyword.lower() for each in found)
    upper = sum(each.keyword == each.keyword.upper() for each in found)
    wanted = "lowercase" if lower > upper else "uppercase"
    for each in found:
        right = each.keyword.lower() if lower > upper else each.keyword.upper()
        if each.keyword != right:
            linter.report(
                rules.CONSISTENT_INSTRUCTION_CASING, each.place, each.keyword, wanted,
                comments=each.comments,
            )  # fmt: skip


def _did_you_mean(sign: str, name: str, options: "Collection[str]") -> str:
    found = suggestion(name, sorted(options))
    return f" (did you mean {sign}{found}?)" if found else ""
