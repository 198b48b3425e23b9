"""BuildKit's rules: what breaks them, and which of them count."""

import pytest

from ketch.spec.dockerfile import checks, lint, parsing, rules, stages
from ketch.spec.dockerfile.checks import StageChecks
from ketch.spec.dockerfile.errors import DockerfileError, Place
from ketch.spec.dockerfile.expansion import Expander, Lexer
from ketch.spec.dockerfile.instructions import Arg, Env, Shell, expand
from ketch.spec.dockerfile.lint import Linter, Options
from ketch.spec.ignore_patterns import IgnorePatterns

PREDEFINED = {"TARGETPLATFORM": "linux/amd64", "TARGETARCH": "amd64"}
HEAD = "FROM scratch\n"


def found(text: str, ignored: IgnorePatterns | None = None) -> list[tuple[str, str, int]]:
    """What is found in a Dockerfile that is evaluated as a build does it."""
    read = stages.read(parsing.parse(text.encode()))
    linter = Linter(lint.options_of(text.encode()))
    checks.check_file(linter, read)
    declared = {
        variable.name: variable.default for arg in read.global_args for variable in arg.variables
    }
    defaults = PREDEFINED | {
        name: default or "" for name, default in declared.items() if default is not None
    }
    checks.check_default_bases(linter, read, defaults)
    known: dict[str, StageChecks] = {}
    for stage in read.stages:
        base = Lexer().process(stage.begin.base, defaults)
        checks.check_base(linter, stage.begin, base.missing, {*defaults, *declared})
        if stage.begin.platform:
            platform = Lexer().process(stage.begin.platform, defaults)
            system, _, rest = platform.text.partition("/")
            parts = (system, rest.partition("/")[0])
            checks.check_platform(linter, stage.begin, platform, "linux/amd64", parts)
        here = StageChecks(linter, known.get(base.text))
        known[stage.name] = here
        environment = {"PATH": "/bin"}
        arguments: set[str] = set()
        shell = False
        for instruction in stage.instructions:
            expander = Expander(environment)
            done = expand(instruction, expander)
            here.undefined(instruction, expander.missing, arguments, environment)
            here.instruction(done, shell_given=shell, ignored=ignored)
            shell = shell or isinstance(done, Shell)
            if isinstance(done, Env):
                environment |= {pair.name: pair.value for pair in done.pairs}
            if isinstance(done, Arg):
                arguments |= {variable.name for variable in done.variables}
    return [(each.rule.name, each.message, each.place.first) for each in linter.findings]


@pytest.mark.parametrize(
    ("text", "rule", "message", "line"),
    [
        ("FROM scratch AS Bad", "StageNameCasing", "Stage name 'Bad' should be lowercase", 1),
        ("FROM scratch as b", "FromAsCasing", "'as' and 'FROM' keywords' casing do not match", 1),
        ("from scratch AS b", "FromAsCasing", "'AS' and 'from' keywords' casing do not match", 1),
        (HEAD + "COPY a \\\n\n.", "NoEmptyContinuation", "Empty continuation line", 4),
        (HEAD + "COPY a b\ncopy a b", "ConsistentInstructionCasing",
         "Command 'copy' should match the case of the command majority (uppercase)", 3),
        ("from a\nCOPY a b\ncopy a b", "ConsistentInstructionCasing",
         "Command 'COPY' should match the case of the command majority (lowercase)", 2),
        ("From a\nCOPY a b", "ConsistentInstructionCasing",
         "Command 'From' should match the case of the command majority (uppercase)", 1),
        ("FROM a AS b\nFROM a AS b", "DuplicateStageName",
         'Duplicate stage name "b", stage names should be unique', 2),
        ("FROM a AS scratch", "ReservedStageName",
         'Stage name should not use the same name as reserved stage "scratch"', 1),
        (HEAD + "CMD a", "JSONArgsRecommended",
         "JSON arguments recommended for CMD to prevent unintended behavior related to OS signals",
         2),
        (HEAD + "MAINTAINER a", "MaintainerDeprecated",
         "Maintainer instruction is deprecated in favor of using label", 2),
        ("FROM a$b", "UndefinedArgInFrom", "FROM argument 'b' is not declared", 1),
        ("ARG version=1\nFROM a:${verson:-1}", "UndefinedArgInFrom",
         "FROM argument 'verson' is not declared (did you mean version?)", 2),
        (HEAD + "WORKDIR a", "WorkdirRelativePath",
         'Relative workdir "a" can have unexpected results if the base image changes', 2),
        (HEAD + "COPY $x /", "UndefinedVar", "Usage of undefined variable '$x'", 2),
        (HEAD + "ENV A=$PAHT", "UndefinedVar",
         "Usage of undefined variable '$PAHT' (did you mean $PATH?)", 2),
        (HEAD + 'CMD ["a"]\nCMD ["b"]', "MultipleInstructionsDisallowed",
         "Multiple CMD instructions should not be used in the same stage because only the last one "
         "will be used", 2),
        (HEAD + "HEALTHCHECK NONE\nHEALTHCHECK CMD a", "MultipleInstructionsDisallowed",
         "Multiple HEALTHCHECK instructions should not be used in the same stage because only the "
         "last one will be used", 2),
        (HEAD + "ENV a b", "LegacyKeyValueFormat",
         '"ENV key=value" should be used instead of legacy "ENV key value" format', 2),
        ("FROM --platform=$TARGETPLATFORM a", "RedundantTargetPlatform",
         "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the "
         "default behavior", 1),
        (HEAD + "ARG API_KEY", "SecretsUsedInArgOrEnv",
         'Do not use ARG or ENV instructions for sensitive data (ARG "API_KEY")', 2),
        (HEAD + "ENV git_token=a", "SecretsUsedInArgOrEnv",
         'Do not use ARG or ENV instructions for sensitive data (ENV "git_token")', 2),
        ("ARG TAG\nFROM a:$TAG", "InvalidDefaultArgInFrom",
         "Default value for ARG a:$TAG results in empty or invalid base image name", 2),
        ("FROM --platform=linux/arm64 a AS b", "FromPlatformFlagConstDisallowed",
         'FROM --platform flag should not use constant value "linux/arm64"', 1),
        (HEAD + "EXPOSE 80/TCP", "ExposeProtoCasing",
         "Defined protocol '80/TCP' in EXPOSE instruction should be lowercase", 2),
        (HEAD + "EXPOSE 127.0.0.1:80:80", "ExposeInvalidFormat",
         "EXPOSE instruction should not define an IP address or host-port mapping, found "
         "'127.0.0.1:80:80'", 2),
        ("# check=experimental=all\n# what it is\nFROM scratch AS b",
         "InvalidDefinitionDescription",
         "Comment for FROM should follow the format: `# b <description>`", 3),
        ("# check=experimental=InvalidDefinitionDescription\n# what it is\nARG a b\nFROM scratch",
         "InvalidDefinitionDescription",
         "Comment for ARG should follow the format: `# <arg_key> <description>`", 3),
    ],
)  # fmt: skip
def test_a_broken_rule_is_told(text: str, rule: str, message: str, line: int) -> None:
    assert found(text) == [(rule, message, line)]


@pytest.mark.parametrize(
    "text",
    [
        "FROM scratch AS a\nFROM a AS b",
        "from scratch as a\ncopy a b",
        HEAD + 'CMD ["a"]',
        HEAD + 'SHELL ["a"]\nCMD a\nENTRYPOINT a',
        HEAD + "RUN a",
        HEAD + "HEALTHCHECK CMD a",
        HEAD + "WORKDIR /a\nWORKDIR b",
        "FROM scratch AS a\nWORKDIR /a\nFROM a\nWORKDIR b",
        HEAD + "ARG a\nENV b=$a",
        HEAD + "ENV a=1\nENV b=$a c=${PATH}",
        HEAD + "ENV b=\\$a c='$a'",
        HEAD + "EXPOSE $x 80/tcp",
        HEAD + "ARG x=$a",
        HEAD + "ENV PUBLIC_KEY=a KEY_FILE=b MONKEY=c",
        'FROM scratch AS a\nCMD ["a"]\nFROM a\nCMD ["b"]',
        "ARG TAG=1\nFROM a:$TAG",
        "FROM --platform=linux/arm64 a AS b-arm64",
        "FROM --platform=linux/$TARGETARCH a",
        "# what it is\nFROM scratch AS b",
        "# check=experimental=all\n# what it is\n\nFROM scratch AS b\n# a is it\nARG a b",
        "# check=skip=all\nFROM scratch as B\nMAINTAINER a",
        "# check=skip=FromAsCasing,StageNameCasing\nFROM scratch as B",
        "# escape=\\\n# check=skip=JSONArgsRecommended;error=true\nFROM scratch\nCMD a",
        HEAD + "# check=skip=JSONArgsRecommended\nCMD a",
        "# check=skip=StageNameCasing\nFROM scratch AS B",
    ],
)
def test_what_is_well_is_left_alone(text: str) -> None:
    assert found(text) == []


@pytest.mark.parametrize(
    ("patterns", "line", "message"),
    [
        (["a"], "COPY a /", 'Attempting to Copy file "a" that is excluded by .dockerignore'),
        (["a"], "ADD ./a/b /", 'Attempting to Add file "a/b" that is excluded by .dockerignore'),
        (["*"], "COPY . /", 'Attempting to Copy file "." that is excluded by .dockerignore'),
        (["a"], "COPY . /", None),
        (["a", "!a/b"], "COPY a /", None),
        (["a"], "COPY --from=x a /", None),
        (["*"], "ADD https://a.example/x /", None),
        (["*"], "ADD git@a.example:x.git /", None),
    ],
)
def test_copying_what_is_ignored(patterns: list[str], line: str, message: str | None) -> None:
    text = f"FROM scratch AS x\nFROM scratch\n{line}"
    expected = [("CopyIgnoredFile", message, 3)] if message else []
    assert found(text, IgnorePatterns(patterns)) == expected


def test_a_base_for_another_platform() -> None:
    linter = Linter()
    checks.check_base_image(linter, Place(1, 1), "a", "linux/arm64", "linux/amd64")
    assert [finding.short for finding in linter.findings] == [
        'InvalidBaseImagePlatform: Base image a was pulled with platform "linux/arm64", expected '
        '"linux/amd64" for current build (line 1)'
    ]


def test_broken_rules_are_an_error_where_that_is_wanted() -> None:
    linter = Linter(Options(error=True))
    assert linter.error() is None
    linter.report(rules.MAINTAINER_DEPRECATED, Place(3, 3))
    linter.report(rules.JSON_ARGS_RECOMMENDED, Place(2, 2), "CMD")
    error = linter.error()
    assert error is not None
    assert error.message == (
        "lint violation found for rules: JSONArgsRecommended, MaintainerDeprecated"
    )
    assert error.places == (Place(2, 2), Place(3, 3))
    assert Linter(findings=linter.findings).error() is None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Options()),
        ("skip=A, B ;error=1", Options(skipped=frozenset({"A", "B"}), error=True)),
        ("skip=all", Options(skip_all=True, skipped=frozenset({"all"}))),
        ("error=false;experimental=all",
         Options(experimental_all=True, experimental=frozenset({"all"}))),
    ],
)  # fmt: skip
def test_options(text: str, expected: Options) -> None:
    assert lint.options(text) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("skip", 'invalid check option "skip"'),
        ("warn=A", 'invalid check option "warn"'),
        ("error=maybe", 'failed to parse check option "error=maybe": strconv.ParseBool: parsing '
                        '"maybe": invalid syntax'),
    ],
)  # fmt: skip
def test_malformed_options_are_refused(text: str, reason: str) -> None:
    with pytest.raises(DockerfileError) as caught:
        lint.options_of(f"# check={text}\nFROM a".encode())
    assert caught.value.message == f"failed to parse check options: {reason}"
    assert lint.options_of(b"# check=bad", "skip=all").skip_all


def test_each_rule_says_what_it_asks_for_and_where_that_is_explained() -> None:
    names = [rule.name for rule in rules.RULES]
    assert len(names) == len({*names}) == 22
    for rule in rules.RULES:
        assert rule.description
        assert rule.message.format("x", "y", "z")
        page = "".join(f"-{letter.lower()}" if letter.isupper() else letter for letter in rule.name)
        expected = f"https://docs.docker.com/go/dockerfile/rule/{page[1:]}/"
        assert rule.url in {expected.replace("j-s-o-n", "json"), ""}
