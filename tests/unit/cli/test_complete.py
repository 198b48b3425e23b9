"""What ``ketch __complete`` answers where there is no engine yet."""

import pathlib
from collections.abc import Callable

import pytest

from ketch.cli import candidates, complete, main
from ketch.cli.flags import Command, HelpRequested, parse
from ketch.engine.settings import Settings

Ask = Callable[..., tuple[list[str], int]]
NO_SPACE_OR_FILES, NO_FILES, FILES, DIRECTORIES = 6, 4, 0, 16


@pytest.fixture
def ask(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> Ask:
    """Return a function that asks for the candidates: their words, and the directive."""

    def asked(*words: str) -> tuple[list[str], int]:
        assert main.main(["__complete", "--root", str(tmp_path / "none"), *words]) == 0
        out, err = capsys.readouterr()
        assert err == ""
        *lines, last = out.splitlines()
        return [line.partition("\t")[0] for line in lines], int(last.removeprefix(":"))

    return asked


@pytest.mark.parametrize(
    ("words", "found", "directive"),
    [
        (["ru"], ["run"], NO_FILES),
        (["help", "net"], ["network"], NO_FILES),
        (["network", "in"], ["inspect"], NO_FILES),
        (["image", "r"], ["rm"], NO_FILES),
        (["--no-zygote", "volume", ""], ["create", "inspect", "ls", "prune", "rm"], NO_FILES),
        (["system", "re"], ["repair", "reset"], NO_FILES),
        (["system", "reset", "--f"], ["--force"], NO_FILES),
        (["--storage-driver", "f"], ["fuse-overlayfs"], NO_FILES),
        (["--storage-driver=f"], ["--storage-driver=fuse-overlayfs"], NO_FILES),
        (["--state", "/"], [], DIRECTORIES),
        (["run", "--rest"], ["--restart"], NO_FILES),
        (["run", "--restart", "on"], ["on-failure"], NO_FILES),
        (["run", "--restart=on"], ["--restart=on-failure"], NO_FILES),
        (["run", "-restart", "on"], ["on-failure"], NO_FILES),
        (["container", "run", "--pull", "n"], ["never"], NO_FILES),
        (["run", "--rm=t"], ["--rm=true"], NO_FILES),
        (["run", "--name", "--rm", "--tty", "--tt"], [], NO_FILES),
        (["run", "--env", "A=b", "--env-f"], ["--env-file"], NO_FILES),
        (["run", "--env-file", "x", "--env-f"], ["--env-file"], NO_FILES),
        (["run", "--env-file", ""], [], FILES),
        (["run", "-itv", "/et"], [], FILES),
        (["run", "-v", "/etc:"], [], NO_FILES),
        (["run", "--ulimit", "nof"], ["nofile="], NO_SPACE_OR_FILES),
        (["run", "--log-driver", "local", "--log-opt", "max-s"], ["max-size="], NO_SPACE_OR_FILES),
        (["run", "--log-driver", "local", "--log-opt", "syslog-t"], [], NO_FILES),
        (["run", "--log-opt", "syslog-fa"], ["syslog-facility="], NO_SPACE_OR_FILES),
        (["run", "--pid", ""], ["container:", "host"], NO_SPACE_OR_FILES),
        (["run", "--pid", "h"], ["host"], NO_FILES),
        (["run", "image", "--rest"], [], NO_FILES),
        (["exec", "web", "ls", ""], [], NO_FILES),
        (["kill", "-s", "WIN"], ["WINCH"], NO_FILES),
        (["kill", "--", "-"], [], NO_FILES),
        (["stop", "web", "--sig"], ["--signal"], NO_FILES),
        (["ps", "--filter", "st"], ["status="], NO_SPACE_OR_FILES),
        (["ps", "--filter", "status=pa"], ["status=paused"], NO_FILES),
        (["ps", "--filter", "label=x"], [], NO_FILES),
        (["ps", "--format", ""], ["json", "table"], NO_FILES),
        (["save", "--format", "oci-d"], ["oci-dir"], NO_FILES),
        (["volume", "create", "--driver", ""], ["local"], NO_FILES),
        (["network", "create", "-d", "m"], ["macvlan"], NO_FILES),
        (["cp", ""], [], FILES),
        (["import", ""], [], FILES),
        (["completion", ""], ["bash", "fish", "zsh"], NO_FILES),
        # What is wrong, or shows something, is no reason to say or do anything.
        (["nope", ""], [], NO_FILES),
        (["network", "nope", ""], [], NO_FILES),
        (["network", "--help", ""], [], NO_FILES),
        (["network", "-x"], [], NO_FILES),
        (["--nope", "ps", ""], [], NO_FILES),
        (["--help", "ps", ""], [], NO_FILES),
        (["run", "--nope=x"], [], NO_FILES),
        (["run", "--nope", ""], [], NO_FILES),
        (["run", "'"], [], NO_FILES),
        (["run", "--restart", "'on"], ["on-failure"], NO_FILES),
        (["checkpoint", "rm", "nobody", ""], [], NO_FILES),
    ],
)
def test_what_could_be_typed(ask: Ask, words: list[str], found: list[str], directive: int) -> None:
    assert ask(*words) == (found, directive)


def test_what_it_means_is_told_unless_it_is_not_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["__complete", "run", "--read"]) == 0
    described = capsys.readouterr().out
    assert described == "--read-only\tMount the container's root filesystem read-only\n:4\n"
    assert main.main(["__completeNoDesc", "run", "--read"]) == 0
    assert capsys.readouterr().out == "--read-only\n:4\n"


def _accepted() -> dict[str, Command]:
    found = {}
    words = [[name] for name in main.COMMANDS]
    words += [[group, name] for group, members in main.GROUPS.items() for name in members]
    for path in words:
        _, function, _ = main.find(path)
        with pytest.raises(HelpRequested) as caught:
            function(Settings("/nowhere"), ["--help"])
        command = caught.value.command
        found[command.path.partition(" ")[2]] = command
    return found


def test_the_tables_name_flags_commands_and_arguments_that_there_are() -> None:
    commands = {"": main.program(), **_accepted()}
    flags = {flag.name for command in commands.values() for flag in command.flags}
    for key in candidates._OF_FLAGS:
        command, _, flag = key.rpartition("--")
        assert flag in (commands[command.strip()].longs if command else flags), key
    usages = "\n".join(command.usage for command in commands.values())
    for key in candidates._OF_ARGUMENTS:
        command, _, word = key.rpartition(" ")
        assert word in (commands[command].usage if command else usages), key
    assert set(candidates._STATES) <= set(commands)


def test_every_fixed_value_is_one_that_the_flag_takes(tmp_path: pathlib.Path) -> None:
    for command in _accepted().values():
        for flag in command.flags:
            place = candidates.Place(Settings(str(tmp_path)), command, {}, [], "")
            answer = candidates.of_flag(place, flag)
            for word in answer.words:
                if word[-1] not in "=:-" and flag.kind != "bool":
                    arguments = ["x"] * command.minimum_arguments
                    parse(command, [f"--{flag.name}={word}", *arguments])


def test_asking_makes_nothing(tmp_path: pathlib.Path) -> None:
    place = str(tmp_path / "root")
    for words in (["rm", ""], ["rmi", ""], ["network", "rm", ""], ["run", "-v", ""], ["cp", ""]):
        main.main(["__complete", "--root", place, "--state", place, *words])
    assert not (tmp_path / "root").exists()


def test_a_word_is_what_the_shell_would_make_of_it() -> None:
    assert [complete._unquoted(text) for text in ("a", "'a b'", '"a b', r"a\ b", "", "'")] == [
        "a", "a b", "a b", "a b", "", "",
    ]  # fmt: skip
