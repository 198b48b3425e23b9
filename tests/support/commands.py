"""Run a container engine's command line as its user would, and look at what comes back."""

import os
import pathlib
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

import pexpect

TIMEOUT_SECONDS = 60


@dataclass(frozen=True)
class Result:
    """What one command left: exit status (negative: killed by that signal) and its output."""

    arguments: tuple[str, ...]
    status: int
    out: str
    err: str

    def __str__(self) -> str:
        return f"{' '.join(self.arguments)}\nstatus {self.status}\n{self.out}\n{self.err}".rstrip()


@dataclass(frozen=True)
class Engine:
    """A container engine's command line with the options that give it places of its own.

    Attributes:
        name: what the engine is called in test names.
        prefix: program and global options, before the command.
        environment: variables added to the caller's.
    """

    name: str
    prefix: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def host(self) -> Sequence[str]:
        """Words that run a program in the network where the engine's bridges are."""
        return []

    @property
    def python(self) -> Sequence[str]:
        """Words that run this Python as the engine itself runs: as root, wherever that is."""
        return [sys.executable]

    @property
    def limits(self) -> bool:
        """Whether it has control groups, by which alone something is limited."""
        return self.ok("info", "--format", "{{.CgroupDriver}}") != "none"

    @property
    def mounts(self) -> Sequence[str]:
        """Words that run a program, as root, where what it mounts is the engine's to see."""
        return []

    def outside(self, number: int) -> int:
        """Return what an id of the engine's containers is on the machine."""
        return number

    def __call__(
        self,
        *arguments: str,
        stdin: str | bytes | IO[bytes] | None = None,
        timeout: float = TIMEOUT_SECONDS,
        **options: Any,
    ) -> Result:
        """Run a command to its end; whatever its status, return it."""
        source: dict[str, Any] = {"stdin": subprocess.DEVNULL}
        if isinstance(stdin, (str, bytes)):
            source = {"input": stdin.encode() if isinstance(stdin, str) else stdin}
        elif stdin is not None:
            source = {"stdin": stdin}
        done = subprocess.run(
            [*self.prefix, *arguments],
            check=False,
            capture_output=True,
            timeout=timeout,
            env=self._environ(),
            **source,
            **options,
        )
        out, err = (text.decode(errors="surrogateescape") for text in (done.stdout, done.stderr))
        return Result((self.name, *arguments), done.returncode, out, err)

    def ok(self, *arguments: str, **options: Any) -> str:
        """Run a command that must succeed; return its output less the last line's end."""
        result = self(*arguments, **options)
        assert result.status == 0, str(result)
        return result.out.removesuffix("\n")

    def start(self, *arguments: str, **options: Any) -> "subprocess.Popen[bytes]":
        """Start a command and return its process, all three streams as pipes."""
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        streams: dict[str, Any] = {**pipes, **options}
        return subprocess.Popen([*self.prefix, *arguments], env=self._environ(), **streams)

    def terminal(self, *arguments: str, rows: int = 24, columns: int = 80) -> "pexpect.spawn[str]":
        """Start a command on a new pseudo-terminal."""
        program, *rest = self.prefix
        return pexpect.spawn(
            program,
            [*rest, *arguments],
            timeout=20,
            dimensions=(rows, columns),
            encoding="utf-8",
            codec_errors="surrogateescape",
            env=self._environ(),
        )

    def _environ(self) -> "os._Environ[str]":
        # pexpect's stub asks for os._Environ where any mapping would do.
        merged: Any = {**os.environ, **self.environment}
        return merged  # type: ignore[no-any-return]


def finish(terminal: "pexpect.spawn[str]") -> int:
    """Wait for a command on a terminal to end; return its exit status."""
    terminal.expect(pexpect.EOF)
    terminal.wait()
    assert terminal.exitstatus is not None, f"killed by signal {terminal.signalstatus}"
    return terminal.exitstatus


def heeds(pid: int, number: int) -> bool:
    """Whether a process has a handler for a signal: proc_pid_status(5)."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return bool(int(status.partition("SigCgt:")[2].split()[0], 16) >> (number - 1) & 1)
