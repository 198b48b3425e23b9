"""``ketch completion``: what the Tab key does in real shells, with a real engine's names."""

import os
import pathlib
import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence

import pexpect
import pytest

from tests.support.commands import Engine


@pytest.fixture(scope="module")
def there(ketch_engine: Engine) -> Iterator[Engine]:
    """Return a ketch with containers ``c-up`` and ``c-down``, a network, a volume and an image."""
    ketch_engine.ok("run", "-d", "--name", "c-up", "--init", "busybox", "sleep", "1000")
    ketch_engine.ok("create", "--name", "c-down", "busybox", "true")
    ketch_engine.ok("network", "create", "wires")
    ketch_engine.ok("volume", "create", "drum")
    ketch_engine.ok("tag", "busybox", "registry.test:5000/box:1")
    yield ketch_engine
    ketch_engine.ok("rm", "-f", "c-up", "c-down")
    ketch_engine.ok("network", "rm", "wires")
    ketch_engine.ok("volume", "rm", "drum")
    ketch_engine.ok("rmi", "registry.test:5000/box:1")


@pytest.fixture
def directory(tmp_path: pathlib.Path) -> pathlib.Path:
    """Return a directory with files to complete."""
    (tmp_path / "names.env").touch()
    (tmp_path / "with blank").mkdir()
    return tmp_path


def environment(ketch: Engine, directory: pathlib.Path) -> dict[str, str]:
    places = dict(zip(ketch.prefix[1::2], ketch.prefix[2::2], strict=True))
    return {
        **os.environ, "KETCH_ROOT": places["--root"], "KETCH_STATE": places["--state"],
        "PATH": f"{pathlib.Path(ketch.prefix[0]).parent}:{os.environ['PATH']}",
        "HOME": str(directory), "PS1": "", "INPUTRC": "/dev/null", "TERM": "dumb", "LC_ALL": "C",
    }  # fmt: skip


# Bash, asked as readline asks it

BASH = r"""
source <(ketch completion bash) || exit 3
COMP_LINE=$1 COMP_POINT=${#1} COMP_TYPE=63 COMP_CWORD=$(($# - 2)) COMP_WORDS=("${@:2}")
compopt() { echo "compopt $*"; }
_ketch
printf '%s\n' "${COMPREPLY[@]}"
"""

# What stands before the cursor, readline's words of it, and what is offered. Descriptions go first.
CASES = [
    ("ketch ru", ["ketch", "ru"], ["run"]),
    ("ketch stop ", ["ketch", "stop", ""], ["c-up"]),
    ("ketch start ", ["ketch", "start", ""], ["c-down"]),
    ("ketch rm ", ["ketch", "rm", ""], ["c-down"]),
    ("ketch rm -f ", ["ketch", "rm", "-f", ""], ["c-down", "c-up"]),
    ("ketch logs c-down ", ["ketch", "logs", "c-down", ""], []),
    ("ketch unpause ", ["ketch", "unpause", ""], []),
    ("ketch container inspect c-", ["ketch", "container", "inspect", "c-"], ["c-down", "c-up"]),
    ("ketch rmi reg", ["ketch", "rmi", "reg"], ["registry.test:5000/box:1"]),
    ("ketch rmi registry.test:5", ["ketch", "rmi", "registry.test", ":", "5"], ["5000/box:1"]),
    ("ketch run --network w", ["ketch", "run", "--network", "w"], ["wires"]),
    ("ketch run --network=w", ["ketch", "run", "--network", "=", "w"], ["wires"]),
    ("ketch run --network=", ["ketch", "run", "--network", "=", ""],
     ["bridge", "container:", "host", "none", "pasta", "slirp4netns", "wires"]),
    ("ketch run --network container:", ["ketch", "run", "--network", "container", ":"],
     ["c-down", "c-up"]),
    ("ketch run -v d", ["ketch", "run", "-v", "d"], ["compopt -o nospace", "drum:"]),
    ("ketch run -v ./n", ["ketch", "run", "-v", "./n"], ["./names.env", "compopt -o filenames"]),
    ("ketch run --env-file=na", ["ketch", "run", "--env-file", "=", "na"],
     ["compopt -o filenames", "names.env"]),
    ("ketch cp ", ["ketch", "cp", ""],
     ["c-down:", "c-up:", "compopt -o nospace", "names.env", "with blank/"]),
    ("ketch cp c-up", ["ketch", "cp", "c-up"], ["c-up:", "compopt -o nospace"]),
    ("ketch network connect ", ["ketch", "network", "connect", ""],
     ["bridge", "host", "none", "wires"]),
    ("ketch network connect wires c-u", ["ketch", "network", "connect", "wires", "c-u"], ["c-up"]),
    ("ketch inspect --type volume ", ["ketch", "inspect", "--type", "volume", ""], ["drum"]),
    ("ketch ps --filter network=w", ["ketch", "ps", "--filter", "network", "=", "w"], ["wires"]),
    ("ketch rm x", ["ketch", "rm", "x"], []),
]  # fmt: skip


@pytest.mark.parametrize(("line", "words", "offered"), CASES, ids=[line for line, *_ in CASES])
def test_bash_offers_what_fits(
    there: Engine, directory: pathlib.Path, line: str, words: Sequence[str], offered: list[str]
) -> None:
    done = subprocess.run(
        ["bash", "-c", BASH, "bash", line, *words], check=False, capture_output=True, text=True,
        env=environment(there, directory), cwd=directory,
    )  # fmt: skip
    assert (done.stderr, done.returncode) == ("", 0)
    assert sorted(filter(None, done.stdout.splitlines())) == offered


def test_bash_tells_what_commands_and_flags_mean_where_there_is_a_choice(
    there: Engine, directory: pathlib.Path
) -> None:
    done = subprocess.run(
        ["bash", "-c", BASH, "bash", "ketch run --read", "ketch", "run", "--r"], check=True,
        capture_output=True, text=True, env=environment(there, directory),
    )  # fmt: skip
    lines = done.stdout.splitlines()
    assert "--rm         (Remove the container and its anonymous volumes when it exits)" in lines
    assert all(len(line) < 80 for line in lines)
    script = there.ok("completion", "bash", "--no-descriptions")
    assert "__completeNoDesc" in script


def test_bash_knows_the_command(there: Engine, directory: pathlib.Path) -> None:
    told = subprocess.run(
        ["bash", "-c", "source <(ketch completion bash); complete -p ketch"], check=True,
        capture_output=True, text=True, env=environment(there, directory),
    ).stdout  # fmt: skip
    assert told == "complete -F _ketch ketch\n"


# The Tab key

TYPED = [
    ("ketch ru\t--na\tx --restart unl\t", "ketch run --name x --restart unless-stopped "),
    ("ketch rmi registry.test:5\t", "ketch rmi registry.test:5000/box:1 "),
    ("ketch stop c\t", "ketch stop c-up "),
    ("ketch run --network=wi\t--ulimit nof\t1", "ketch run --network=wires --ulimit nofile=1"),
    ("ketch run -v dr\t/x", "ketch run -v drum:/x"),
    ("ketch run --env-file na\t", "ketch run --env-file names.env "),
    ("ketch run -v ./with\tx", r"ketch run -v ./with\ blank/x"),
]


def typed(shell: "pexpect.spawn[str]", keys: str) -> str:
    """Type keys into a shell that is about to be ready; return the line that it has then."""
    shell.expect("ready")
    for part in re.split("(?<=\t)", keys):
        shell.send(part)
    shell.send("\x0f")
    shell.expect("<<(.*)>>")
    return str(shell.match[1])  # type: ignore[index]


@pytest.mark.parametrize(("keys", "line"), TYPED, ids=[line for _, line in TYPED])
def test_bash_completes_at_the_tab_key(
    there: Engine, directory: pathlib.Path, keys: str, line: str
) -> None:
    shell = pexpect.spawn(
        "bash", ["--norc", "--noprofile"], env=environment(there, directory),
        cwd=directory, encoding="utf-8", dimensions=(24, 200), echo=False, timeout=20,
    )  # fmt: skip
    try:
        shell.sendline("source <(ketch completion bash); show() { echo \"<<$READLINE_LINE>>\"; }; "
                       "bind -x '\"\\C-o\": show'; echo rea''dy")  # fmt: skip
        assert typed(shell, keys) == line
    finally:
        shell.close(force=True)


@pytest.mark.skipif(not shutil.which("zsh"), reason="zsh is not installed")
@pytest.mark.parametrize(("keys", "line"), TYPED, ids=[line for _, line in TYPED])
def test_zsh_completes_at_the_tab_key(
    there: Engine, directory: pathlib.Path, keys: str, line: str
) -> None:
    shell = pexpect.spawn(
        "zsh", ["-f", "-i"], env=environment(there, directory), cwd=directory,
        encoding="utf-8", dimensions=(24, 200), echo=False, timeout=20,
    )  # fmt: skip
    try:
        shell.sendline(f"autoload -U compinit; compinit -u -d {directory}/dump; "
                       "source <(ketch completion zsh); "
                       "show() { print -r \"<<$BUFFER>>\" }; zle -N show; "
                       "bindkey -e; bindkey '^O' show; echo rea''dy")  # fmt: skip
        assert typed(shell, keys) == line
    finally:
        shell.close(force=True)


@pytest.mark.skipif(not shutil.which("fish"), reason="fish is not installed")
@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("ketch ru", ["run\tCreate and run a new container from an image"]),
        ("ketch stop ", ["c-up"]),
        ("ketch run --network=w", ["--network=wires"]),
        ("ketch rmi registry.test:5", ["registry.test:5000/box:1"]),
        ("ketch run --env-file na", ["names.env"]),
        ("ketch run --env-file=na", ["--env-file=names.env"]),
        ("ketch run -v d", ["drum:"]),
        ("ketch rm x", []),
    ],
)
def test_fish_offers_what_fits(
    there: Engine, directory: pathlib.Path, line: str, offered: list[str]
) -> None:
    done = subprocess.run(
        ["fish", "--no-config", "-c", f"ketch completion fish | source; complete -C '{line}'"],
        check=True, capture_output=True, text=True, cwd=directory,
        env=environment(there, directory),
    )  # fmt: skip
    assert done.stderr == ""
    assert [text.strip() for text in done.stdout.splitlines()] == offered
