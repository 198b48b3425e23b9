import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.cli.flags import Command, Flag, HelpRequested, UsageError, help_text, parse
from ketch.errors import InvalidArgumentError


def kilobytes(text: str) -> int:
    if not text.endswith("k"):
        raise InvalidArgumentError(f"invalid size: '{text}'")
    return int(text[:-1])


RUN = Command(
    "ketch run [OPTIONS] IMAGE [COMMAND] [ARG...]",
    "Create and run a new container from an image",
    (
        Flag("interactive", "i", "bool", "Keep standard input open"),
        Flag("tty", "t", "bool", "Allocate a pseudo-TTY"),
        Flag("detach", "d", "bool", "Run in the background"),
        Flag("rm", kind="bool", help="Remove the container when it exits"),
        Flag("sig-proxy", kind="bool", help="Pass signals on", default=True),
        Flag("env", "e", "list", "Set environment variables"),
        Flag("hostname", "h", help="Container host name"),
        Flag("memory", "m", help="Memory limit", metavar="bytes", convert=kilobytes),
        Flag("cpu-shares", "c", "int", "CPU shares", aliases=("cpushare",)),
        Flag("cpuset-cpus", help="CPUs to run on", aliases=("cpuset",)),
        Flag("name", help="Assign a name"),
        Flag("network", help="Connect to a network", aliases=("net",)),
    ),
    minimum_arguments=1,
    interspersed=False,
)
TAG = Command("ketch tag SOURCE TARGET", "Name an image", (), 2, 2)
PS = Command("ketch ps [OPTIONS]", "List containers", (Flag("all", "a", "bool"),), 0, 0)
RM = Command("ketch rm [OPTIONS] CONTAINER [CONTAINER...]", "", (Flag("force", "f", "bool"),), 1)


def refusal(command: Command, *arguments: str) -> UsageError:
    with pytest.raises(UsageError) as caught:
        parse(command, arguments)
    return caught.value


@pytest.mark.parametrize("words", ["-it", "-ti", "-i -t", "--interactive --tty", "-i=true -t=T"])
def test_booleans_group_in_any_order(words: str) -> None:
    parsed = parse(RUN, [*words.split(), "busybox"])
    assert parsed.enabled("interactive")
    assert parsed.enabled("tty")
    assert not parsed.enabled("detach")
    assert parsed.given == {"interactive", "tty"}


@pytest.mark.parametrize(
    "words", ["-m 5k", "-m5k", "-m=5k", "--memory 5k", "--memory=5k", "-itm5k"]
)
def test_a_value_is_attached_follows_or_is_assigned(words: str) -> None:
    assert parse(RUN, [*words.split(), "busybox"]).number("memory") == 5


def test_a_value_may_look_like_a_flag_be_empty_or_hold_an_equals_sign() -> None:
    parsed = parse(RUN, ["--name", "--rm", "-e", "A=b=c", "-e=D=", "-eF=1", "--hostname=", "x"])
    assert parsed.text("name") == "--rm"
    assert parsed.items("env") == ["A=b=c", "D=", "F=1"]
    assert parsed.text("hostname") == ""
    assert "hostname" in parsed.given


def test_booleans_never_take_the_next_word() -> None:
    assert parse(RUN, ["--rm", "false"]).arguments == ["false"]
    assert not parse(RUN, ["--sig-proxy=false", "x"]).enabled("sig-proxy")
    assert parse(RUN, ["x"]).enabled("sig-proxy")


def test_the_first_argument_ends_the_flags_of_a_program() -> None:
    parsed = parse(RUN, ["--rm", "busybox", "ls", "-l", "--", "--rm"])
    assert parsed.arguments == ["busybox", "ls", "-l", "--", "--rm"]


def test_flags_may_follow_arguments_elsewhere_until_a_double_dash() -> None:
    parsed = parse(RM, ["a", "-f", "-", "--", "-b"])
    assert parsed.enabled("force")
    assert parsed.arguments == ["a", "-", "-b"]


@pytest.mark.parametrize(
    ("words", "name", "value"),
    [
        ("-net host", "network", "host"),
        ("-net=host", "network", "host"),
        ("--net host", "network", "host"),
        ("-name web", "name", "web"),
        ("-cpuset 0-1", "cpuset-cpus", "0-1"),
        ("-cpushare 512", "cpu-shares", 512),
        ("-cpu-shares 512", "cpu-shares", 512),
        ("-memory 5k", "memory", 5),
        ("-rm", "rm", True),
    ],
)
def test_long_names_after_a_single_dash(words: str, name: str, value: object) -> None:
    parsed = parse(RUN, [*words.split(), "busybox"])
    assert parsed.values[name] == value
    assert parsed.arguments == ["busybox"]


def test_a_group_that_pflag_accepts_keeps_its_meaning() -> None:
    # `-env` is `-e nv`, and `-detach` is `-d -e tach`, to docker as well.
    assert parse(RUN, ["-env", "x"]).items("env") == ["nv"]
    parsed = parse(RUN, ["-detach", "x"])
    assert parsed.enabled("detach")
    assert parsed.items("env") == ["tach"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--foo", "unknown flag: --foo"),
        ("--foo=bar", "unknown flag: --foo"),
        ("-x", "unknown shorthand flag: 'x' in -x"),
        ("-itx", "unknown shorthand flag: 'x' in -x"),
        ("--memory", "flag needs an argument: --memory"),
        ("-name", "flag needs an argument: -name"),
        ("-tm", "flag needs an argument: 'm' in -m"),
        ("--=x", "bad flag syntax: --=x"),
        ("---x", "bad flag syntax: ---x"),
        ("-m x", 'invalid argument "x" for "-m, --memory" flag: invalid size: \'x\''),
        (
            "--rm=maybe",
            'invalid argument "maybe" for "--rm" flag: '
            'strconv.ParseBool: parsing "maybe": invalid syntax',
        ),
        (
            "-c x",
            'invalid argument "x" for "-c, --cpu-shares" flag: '
            'strconv.ParseInt: parsing "x": invalid syntax',
        ),
    ],
)
def test_refusals_have_dockers_words(words: str, message: str) -> None:
    error = refusal(RUN, *words.split())
    assert error.message == message
    assert error.exit_status == 125
    assert error.hint == (
        "Usage:  ketch run [OPTIONS] IMAGE [COMMAND] [ARG...]\n\n"
        "Run 'ketch run --help' for more information"
    )


@pytest.mark.parametrize(
    ("command", "words", "message"),
    [
        (RUN, "", "'ketch run' requires at least 1 argument"),
        (TAG, "a", "'ketch tag' requires 2 arguments"),
        (TAG, "a b c", "'ketch tag' requires 2 arguments"),
        (PS, "x", "'ketch ps' accepts no arguments"),
        (Command("ketch a", "", (), 0, 1), "x y", "'ketch a' requires at most 1 argument"),
        (
            Command("ketch a", "", (), 1, 2),
            "",
            "'ketch a' requires at least 1 and at most 2 arguments",
        ),
    ],
)
def test_the_number_of_arguments(command: Command, words: str, message: str) -> None:
    error = refusal(command, *words.split())
    assert error.message == message
    assert error.exit_status == 1
    see = "See" if command.maximum_arguments is None else "Run"
    assert error.hint.endswith(f"{see} '{command.path} --help' for more information")


def test_help_wins_over_missing_arguments_but_not_over_bad_flags() -> None:
    with pytest.raises(HelpRequested) as caught:
        parse(RUN, ["--help"])
    assert caught.value.text().startswith("Usage:  ketch run [OPTIONS] IMAGE")
    assert refusal(RUN, "--help", "--foo").message == "unknown flag: --foo"
    with pytest.raises(HelpRequested):
        parse(PS, ["-h"])
    assert parse(RUN, ["-h", "web", "x"]).text("hostname") == "web"


def test_help_is_laid_out_as_dockers() -> None:
    command = Command(
        "docker tool [OPTIONS]",
        "Do something",
        (
            Flag(
                "security-opt-and-a-long-name",
                kind="list",
                help="Automatically remove the container and its associated anonymous volumes",
            ),
            Flag("pull", help="Pull image before running", default="missing"),
            Flag("quiet", "q", "bool", "Suppress the output"),
            Flag("sig-proxy", kind="bool", help="Proxy signals", default=True),
        ),
    )
    assert help_text(command, aliases=("docker container tool", "docker tool")) == (
        "Usage:  docker tool [OPTIONS]\n"
        "\n"
        "Do something\n"
        "\n"
        "Aliases:\n"
        "  docker container tool, docker tool\n"
        "\n"
        "Options:\n"
        "      --pull string                         Pull image before running\n"
        '                                            (default "missing")\n'
        "  -q, --quiet                               Suppress the output\n"
        "      --security-opt-and-a-long-name list   Automatically remove the\n"
        "                                            container and its associated\n"
        "                                            anonymous volumes\n"
        "      --sig-proxy                           Proxy signals (default true)\n"
    )


def test_help_on_a_narrow_screen_goes_below_the_flags() -> None:
    flag = Flag("a-name-of-some-length", "n", "list", "What it does, at some length, in full")
    assert help_text(Command("docker tool", "Do it", (flag,)), 60).splitlines()[-2:] == [
        "  -n, --a-name-of-some-length list   ",
        "                What it does, at some length, in full",
    ]


@given(st.lists(st.text(alphabet="-=itdemhnc x", max_size=6), max_size=5))
def test_any_command_line_is_understood_or_refused(words: list[str]) -> None:
    try:
        parsed = parse(RUN, words)
    except (UsageError, HelpRequested):
        return
    assert len(parsed.arguments) >= 1
    assert parsed.given <= set(parsed.values)
