"""Options before the command, which module answers, and what an error looks like."""

import os
import subprocess
import sys

import pytest

from ketch.cli import main
from ketch.errors import KetchError

PROGRAM = [sys.executable, "-c", "import sys; from ketch.cli.main import main; sys.exit(main())"]


def options(*words: str) -> tuple[str, str, bool, list[str]]:
    settings, rest = main._global_options(list(words))
    assert settings is not None
    return settings.root, settings.state, settings.zygote, rest


@pytest.fixture(autouse=True)
def _no_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KETCH_ROOT", raising=False)
    monkeypatch.delenv("KETCH_STATE", raising=False)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["ps"], ("/var/lib/ketch", "/run/ketch", True, ["ps"])),
        (["--root", "/r", "ps", "-a"], ("/r", "/run/ketch", True, ["ps", "-a"])),
        (["--root=/r", "--state=/s", "ps"], ("/r", "/s", True, ["ps"])),
        (["--root=/a=b", "ps"], ("/a=b", "/run/ketch", True, ["ps"])),
        (["--root", "/a", "--root", "/b", "ps"], ("/b", "/run/ketch", True, ["ps"])),
        (["--no-zygote", "run", "x"], ("/var/lib/ketch", "/run/ketch", False, ["run", "x"])),
        (["run", "--root=/r"], ("/var/lib/ketch", "/run/ketch", True, ["run", "--root=/r"])),
    ],
)
def test_global_options(words: list[str], expected: tuple[str, str, bool, list[str]]) -> None:
    assert options(*words) == expected


def test_places_come_from_the_environment_and_options_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KETCH_ROOT", "/e/root")
    monkeypatch.setenv("KETCH_STATE", "/e/state")
    assert options("--state", "/s", "ps")[:2] == ("/e/root", "/s")


def test_places_are_absolute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/usr")
    assert options("--root", "lib", "--state=../x", "ps")[:2] == ("/usr/lib", "/x")


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["--root"], 125, "flag needs an argument: --root"),
        (["--root="], 125, "the name is empty"),
        (["--what", "ps"], 125, "unknown flag: --what"),
        (["--what=x"], 125, "unknown flag: --what"),
        (["-x"], 125, "unknown shorthand flag: 'x' in -x"),
    ],
)
def test_wrong_global_options(words: list[str], status: int, message: str) -> None:
    with pytest.raises(KetchError, match=message) as caught:
        main._global_options(words)
    assert getattr(caught.value, "exit_status", 1) == status


@pytest.mark.parametrize("words", [[], ["help"], ["--help"], ["-h"], ["--root", "/r", "--help"]])
def test_help(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(words) == 0
    out, err = capsys.readouterr()
    assert "Usage:  ketch [OPTIONS] COMMAND" in out
    assert err == ""


@pytest.mark.parametrize("group", sorted(main.GROUPS))
def test_groups_list_their_commands(group: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main([group, "--help"]) == 0
    out, err = capsys.readouterr()
    assert (out.startswith(f"Usage:  ketch {group} COMMAND\n"), err) == (True, "")
    listed = [line.split(None, 1) for line in out.splitlines() if line.startswith("  ")]
    assert all(len(words) == 2 for words in listed), "each says what it does"
    assert main.main([group]) == 0
    assert capsys.readouterr() == ("", out)


@pytest.mark.parametrize("words", [["nope"], ["container", "nope"], ["image", "run"]])
def test_unknown_commands(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(words) == 1
    assert f"unknown command: ketch {' '.join(words)}" in capsys.readouterr().err


@pytest.mark.parametrize("name", sorted(main.COMMANDS))
def test_every_command_has_its_function_and_its_help(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main([name, "--help"]) == 0
    out, err = capsys.readouterr()
    assert f"Usage:  ketch {name}" in out
    assert err == ""


def test_groups_lead_to_commands() -> None:
    for group in main.GROUPS.values():
        for command in group.values():
            if isinstance(command, str):
                assert command in main.COMMANDS
            else:
                assert callable(main._function(*command))


@pytest.mark.parametrize(
    ("error", "status", "told"),
    [
        (RuntimeError("boom"), 125, "ketch: internal error: RuntimeError('boom')"),
        (PermissionError(13, "Permission denied", "/x"), 125, "ketch: Permission"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_no_traceback_unless_asked_for(
    error: BaseException,
    status: int,
    told: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_arguments: object) -> int:
        raise error

    monkeypatch.setattr("ketch.cli.run.run", fail)
    monkeypatch.delenv("KETCH_DEBUG", raising=False)
    assert main.main(["run", "x"]) == status
    err = capsys.readouterr().err
    assert err.startswith(told)
    assert "Traceback" not in err
    if isinstance(error, Exception):
        monkeypatch.setenv("KETCH_DEBUG", "1")
        with pytest.raises(type(error)):
            main.main(["run", "x"])


@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_closed_stream_is_not_taken_for_something_else(number: int) -> None:
    """What is opened first would otherwise be written and read as if it were the stream."""
    done = subprocess.run(
        ["sh", "-c", f'exec "$@" {number}>&-', "sh", *PROGRAM, "--help"],
        check=False, capture_output=True,
    )  # fmt: skip
    assert done.returncode == 0
    assert done.stderr == b""


def test_a_full_disk_is_told_and_not_traced() -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [*PROGRAM, "--help"], check=False, stdout=full, stderr=subprocess.PIPE,
            env={**os.environ, "KETCH_DEBUG": ""},
        )  # fmt: skip
    assert done.returncode != 0
    assert b"Traceback" not in done.stderr


def test_a_reader_that_leaves_is_no_error_message() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([*PROGRAM, "--help"], check=False, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert b"Traceback" not in done.stderr
    assert b"Exception" not in done.stderr


@pytest.mark.parametrize(
    ("words", "usage", "aliases"),
    [
        (["container", "rm"], "ketch container rm [OPTIONS] CONTAINER [CONTAINER...]",
         "ketch container rm, ketch container remove, ketch rm"),
        (["container", "ps"], "ketch container ls [OPTIONS]",
         "ketch container ls, ketch container list, ketch container ps, ketch ps"),
        (["rmi"], "ketch rmi [OPTIONS] IMAGE [IMAGE...]",
         "ketch image rm, ketch image remove, ketch rmi"),
        (["network", "list"], "ketch network ls [OPTIONS]",
         "ketch network ls, ketch network list"),
        (["events"], "ketch events [OPTIONS]", "ketch system events, ketch events"),
        (["serve"], "ketch serve [OPTIONS]", ""),
    ],
)  # fmt: skip
def test_help_names_the_command_as_it_was_called_and_its_other_names(
    words: list[str], usage: str, aliases: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main([*words, "--help"]) == 0
    out = capsys.readouterr().out
    assert f"Usage:  {usage}\n" in out
    assert out.partition("Aliases:\n  ")[2].partition("\n")[0] == aliases


def test_errors_name_the_command_as_it_was_called(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["image", "remove"]) == 1
    assert capsys.readouterr().err == (
        "ketch: 'ketch image rm' requires at least 1 argument\n\n"
        "Usage:  ketch image rm [OPTIONS] IMAGE [IMAGE...]\n\n"
        "See 'ketch image rm --help' for more information\n"
    )


@pytest.mark.parametrize("name", sorted({*main.COMMANDS} - {"version"}))
def test_the_list_of_commands_says_what_their_help_says(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main([name, "--help"]) == 0
    about = capsys.readouterr().out.split("\n\n")[1]
    assert about.partition("\n")[0].rstrip(".") == main.COMMANDS[name][2]
