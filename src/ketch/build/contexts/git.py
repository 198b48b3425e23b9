"""Running ``git`` on repositories of strangers.

What is fetched is data: no hook, filter or configuration of a repository's is executed, none of
this machine's or user's is read, nobody is prompted, and only the network's protocols are spoken,
by submodules too. Credentials are handed over in the environment, which others cannot read, and
never stand in an argument or a URL.
"""

import os
import re
import resource
import select
import shlex
import shutil
import signal
import subprocess
from time import monotonic
from typing import TYPE_CHECKING

from ketch.errors import KetchError, UnavailableError, UnsupportedError
from ketch.linux.scopes import owned

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ketch.engine.processes import Patience

_PROTOCOLS = "git:http:https:ssh"
_SECONDS_MAX = 3600.0
_SILENCE_SECONDS_MAX = 300.0  # git tells of its progress twice a second while there is any
_OUTPUT_MAX = 1 << 24  # of a list of references, which a server makes as long as it likes
_ERRORS_MAX = 1 << 13
_MEMORY_BYTES_MIN = 2 << 30
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
_TRUST = ("SSL_CERT_FILE", "SSL_CERT_DIR", "GIT_SSL_CAINFO", "GIT_SSL_CAPATH")
_PROGRESS = re.compile(rb"([A-Z][A-Za-z ]{1,40}): +\d{1,3}% \((\d{1,18})/(\d{1,18})\)")

# Whoever is killed cannot end what it has started, and a server that keeps silent does not either.
# So beside git, in its process group, somebody waits for the end of a pipe whose other end is ours.
_WATCH = "exec 3<&0 && { (read -r _; kill -9 0) <&3 >/dev/null 2>&1 & } "

_SETTINGS = {
    "core.hooksPath": "/dev/null",
    "core.fsmonitor": "false",
    "core.symlinks": "true",
    "core.attributesFile": "/dev/null",
    "core.excludesFile": "/dev/null",
    "credential.helper": "",
    "http.lowSpeedLimit": "1000",
    "http.lowSpeedTime": "60",
    "core.packedGitWindowSize": "64m",  # what it maps of packs counts as memory
    "core.packedGitLimit": "512m",
    "gc.auto": "0",
    "maintenance.auto": "false",
    "advice.detachedHead": "false",
    "init.defaultBranch": "master",
    "fetch.writeCommitGraph": "false",
    "submodule.fetchJobs": "2",
}


class Git:
    """The program, as one build runs it.

    Args:
        directory: an empty one of the build's, which stands for the user's home.
        patience: how the caller waits.
        environment: of the caller: of it PATH, proxies and authorities are taken.
        settings: further ones, such as credentials.
        agent: socket of the ssh agent that has the user's keys, empty for none.
        file_bytes_max: how large a file may become.

    Raises:
        UnsupportedError: there is no such program here.
    """

    def __init__(
        self,
        directory: str,
        patience: "Patience",
        environment: "Mapping[str, str]",
        settings: "Mapping[str, str]",
        agent: str,
        file_bytes_max: int,
    ) -> None:
        path = environment.get("PATH", os.defpath)
        self._program = shutil.which("git", path=path) or ""
        if not self._program:
            raise UnsupportedError(
                "git is needed to fetch from a Git repository, and is not installed here",
                "install the package git, or give the build what it is to fetch as a directory",
            )
        self._directory = directory
        self._patience = patience
        # Of the shell's own making, which hold for whatever git starts, from its beginning. A few
        # trees that name each other can stand for more files than any memory has names of.
        file_blocks = _allowed(resource.RLIMIT_FSIZE, file_bytes_max) // 512
        memory_kib = _allowed(resource.RLIMIT_AS, memory_bytes_max()) // 1024
        script = (
            f"ulimit -f {file_blocks} && ulimit -v {memory_kib} && {_WATCH}"
            '&& exec "$@" </dev/null 3<&-'
        )
        self._limited = ("/bin/sh", "-c", script, "sh")
        self._environment = {
            "PATH": path,
            "HOME": directory,
            "LC_ALL": "C",
            "GIT_TERMINAL_PROMPT": "0",
            "SSH_ASKPASS_REQUIRE": "never",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_ATTR_NOSYSTEM": "1",
            "GIT_ALLOW_PROTOCOL": _PROTOCOLS,
            # The engine's root may lie in somebody's checkout, whose configuration is not ours.
            "GIT_CEILING_DIRECTORIES": os.path.dirname(os.path.realpath(directory)),
            "GIT_TEMPLATE_DIR": "",
            "GIT_SSH_COMMAND": _ssh(directory, environment),
            "GIT_SSH_VARIANT": "ssh",
            **_configured({**_SETTINGS, **settings}),
        }
        for name in (*_PROXIES, *map(str.upper, _PROXIES), *_TRUST):
            if environment.get(name):
                self._environment[name] = environment[name]
        if agent:
            self._environment["SSH_AUTH_SOCK"] = agent

    def run(
        self,
        *arguments: str,
        tell: "Callable[[str, int, int], object] | None" = None,
        where: str = "",
        variables: "Mapping[str, str] | None" = None,
    ) -> bytes:
        """Run it to its end.

        Args:
            arguments: of the program.
            tell: is given what it is at, how many pieces are done, and of how many.
            where: directory to run it in.
            variables: further ones of its environment.

        Returns:
            What it wrote to its standard output.

        Raises:
            GitError: it failed.
            UnavailableError: it takes too long, is silent for too long, or says too much.
        """
        command = [*self._limited, self._program, *arguments]
        environment = {**self._environment, **(variables or {})}
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env=environment, cwd=where or self._directory, umask=0o022, process_group=0, bufsize=0,
        ) as process:  # fmt: skip
            try:
                running = _Running(process, arguments[0], self._patience, tell)
                return running.output()
            finally:
                _end(process)


def memory_bytes_max() -> int:
    """Returns how much memory git may take: half of what the machine has, which is plenty."""
    return max(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2, _MEMORY_BYTES_MIN)


def _allowed(kind: int, wanted: int) -> int:
    """Returns a limit, or less where the caller itself may have no more."""
    hard = resource.getrlimit(kind)[1]
    return wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)


class GitError(KetchError):
    """It ended with a failure.

    Args:
        message: what it said.
    """


class _Running:
    """A process that is listened to."""

    def __init__(
        self,
        process: "subprocess.Popen[bytes]",
        verb: str,
        patience: "Patience",
        tell: "Callable[[str, int, int], object] | None",
    ) -> None:
        self._process = process
        self._verb = verb
        self._patience = patience
        self._tell = tell
        self._errors = b""

    def output(self) -> bytes:
        """Returns what it writes until it ends."""
        process = self._process
        assert process.stdout is not None
        assert process.stderr is not None
        pieces: list[bytes] = []
        length = 0
        streams = {process.stdout.fileno(): False, process.stderr.fileno(): True}
        until = monotonic() + _SECONDS_MAX
        while streams:
            for descriptor, is_error in self._readable(streams, until):
                piece = os.read(descriptor, 1 << 16)
                if not piece:
                    del streams[descriptor]
                elif is_error:
                    self._hear(piece)
                else:
                    pieces.append(piece)
                    length += len(piece)
                    if length > _OUTPUT_MAX:
                        raise UnavailableError(
                            f"git {self._verb} lists more than {_OUTPUT_MAX >> 20} MiB"
                        )
        with owned(os.pidfd_open(process.pid)) as pidfd:
            if not self._patience.wait(round(_SILENCE_SECONDS_MAX * 1000), pidfd):
                raise self._stalled()
        if process.wait() != 0:
            raise GitError(self._reason())
        return b"".join(pieces)

    def _readable(self, streams: "Mapping[int, bool]", until: float) -> "list[tuple[int, bool]]":
        left = min(until - monotonic(), _SILENCE_SECONDS_MAX)
        watched = [(descriptor, select.POLLIN) for descriptor in streams]
        found = self._patience.poll(max(round(left * 1000), 0), *watched)
        ready = [(one, streams[one]) for one, _ in found if one in streams]
        if not ready:
            raise self._stalled()
        return ready

    def _hear(self, piece: bytes) -> None:
        self._errors = (self._errors + piece)[-_ERRORS_MAX:]
        if self._tell is None:
            return
        for match in _PROGRESS.finditer(piece):
            self._tell(match[1].decode().lower(), int(match[2]), int(match[3]))

    def _stalled(self) -> UnavailableError:
        return UnavailableError(f"git {self._verb} takes too long, or has stalled")

    def _reason(self) -> str:
        """Returns what it said last, without its progress."""
        text = self._errors.decode(errors="replace")
        lines = [line.rpartition("\r")[2].strip() for line in text.split("\n")]
        telling = [line for line in lines if line.startswith(("fatal:", "error:", "ERROR:"))]
        found = telling or [line for line in lines if line]
        status = self._process.returncode
        return "; ".join(found[:3])[:1000] or f"git {self._verb} ended with status {status}"


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End it, and all that it has started, if it has not ended."""
    if process.poll() is None:
        # Its own group's leader is not waited for yet, so the number is still its own.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _ssh(directory: str, environment: "Mapping[str, str]") -> str:
    """Returns the command for ssh: no configuration, no questions.

    A host's key must be the one that the user knows; that of an unknown host is taken, for this
    build alone, as BuildKit does.
    """
    home = environment.get("HOME", "")
    files = [f"{directory}/known_hosts", *([f"{home}/.ssh/known_hosts"] if home else [])]
    known = " ".join(f'"{path}"' for path in files if '"' not in path) or "/dev/null"
    options = (
        "BatchMode=yes", "StrictHostKeyChecking=accept-new", f"UserKnownHostsFile={known}",
        "ConnectTimeout=30", "ServerAliveInterval=30",
    )  # fmt: skip
    return shlex.join(
        ["ssh", "-F", "/dev/null", *(word for one in options for word in ("-o", one))]
    )


def _configured(settings: "Mapping[str, str]") -> dict[str, str]:
    """Returns settings as variables: git-config(1), GIT_CONFIG_COUNT."""
    variables = {"GIT_CONFIG_COUNT": str(len(settings))}
    for number, (key, value) in enumerate(settings.items()):
        variables[f"GIT_CONFIG_KEY_{number}"] = key
        variables[f"GIT_CONFIG_VALUE_{number}"] = value
    return variables
