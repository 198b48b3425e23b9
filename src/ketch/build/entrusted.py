"""Secrets and ssh agents that a build is given by name: files, variables, sockets and keys."""

import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from ketch.errors import InvalidArgumentError, NotFoundError, UnavailableError
from ketch.spec.build_options import AgentSource, SecretSource

if TYPE_CHECKING:
    import subprocess

_SECRET_BYTES_MAX = 500 * 1024  # as BuildKit: moby/buildkit, session/secrets
_AGENT_SECONDS = 10.0


class GivenSecrets:
    """Secrets from files and variables; each is looked for at once, and read when it is needed.

    Args:
        sources: what was given.
        environment: the caller's.

    Raises:
        NotFoundError: a file or variable is not there.
        InvalidArgumentError: two have the same id.
    """

    def __init__(self, sources: Iterable[SecretSource], environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._sources: dict[str, SecretSource] = {}
        for given in sources:
            source = given
            if not source.path and not source.variable:
                named = source.id in environment
                source = SecretSource(
                    source.id, "" if named else source.id, source.id if named else ""
                )
            if source.path and not source.variable:
                try:
                    os.stat(source.path)
                except OSError as error:
                    reason = (error.strerror or "").lower()
                    raise NotFoundError(
                        f"failed to stat {source.path}: stat {source.path}: {reason}"
                    ) from error
            self._sources[source.id] = source

    def get(self, id: str) -> bytes | None:  # noqa: A002 - the field's word
        """See ``Secrets``."""
        source = self._sources.get(id)
        if source is None:
            return None
        if source.variable:
            value = self._environment.get(source.variable)
            return None if value is None else os.fsencode(value)
        try:
            with open(source.path, "rb") as file:
                content = file.read(_SECRET_BYTES_MAX + 1)
        except OSError as error:
            raise UnavailableError(
                f"cannot read the secret {id} from {source.path}: {error.strerror}"
            ) from error
        if len(content) > _SECRET_BYTES_MAX:
            raise InvalidArgumentError(
                f"invalid secret {id}: {source.path} has more than {_SECRET_BYTES_MAX} bytes"
            )
        return content


class GivenAgents:
    """Agents that run, and agents of our own for keys; a ``with`` block ends these.

    Args:
        sources: what was given.
        environment: the caller's.
    """

    def __init__(self, sources: Iterable[AgentSource], environment: Mapping[str, str]) -> None:
        self._sources = {source.id: source for source in sources}
        self._environment = environment
        self._sockets: dict[str, str] = {}
        self._programs: list[subprocess.Popen[bytes]] = []
        self._directory = ""

    def __enter__(self) -> "GivenAgents":
        """Look for each, and start those of our own.

        Raises:
            NotFoundError: one is not there.
            InvalidArgumentError: a key cannot be used.
        """
        try:
            for name, source in self._sources.items():
                self._sockets[name] = self._find(source)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """End agents of our own."""
        for program in self._programs:
            program.terminate()
            program.wait()
        if self._directory:
            import shutil  # noqa: PLC0415 - few builds have an agent of their own

            shutil.rmtree(self._directory, ignore_errors=True)

    def socket(self, id: str) -> str | None:  # noqa: A002 - the field's word
        """See ``Agents``."""
        return self._sockets.get(id)

    def _find(self, source: AgentSource) -> str:
        if not source.paths:
            path = self._environment.get("SSH_AUTH_SOCK", "")
            if not path:
                raise NotFoundError(
                    "invalid empty ssh agent socket: SSH_AUTH_SOCK is not set",
                    "start an agent, or name a key: --ssh default=$HOME/.ssh/id_ed25519",
                )
            return os.path.abspath(path)
        try:
            kinds = [os.stat(path).st_mode for path in source.paths]
        except OSError as error:
            raise NotFoundError(f"cannot use {error.filename}: {error.strerror}") from error
        if any(mode & 0o170000 == 0o140000 for mode in kinds):
            if len(kinds) > 1:
                raise InvalidArgumentError("only single socket allowed")
            return os.path.abspath(source.paths[0])
        return self._start(source)

    def _start(self, source: AgentSource) -> str:
        """Start an agent with some keys; it is ours, and lives as long as the build."""
        import shutil  # noqa: PLC0415 - see above
        import subprocess  # noqa: PLC0415
        import tempfile  # noqa: PLC0415

        if not shutil.which("ssh-agent") or not shutil.which("ssh-add"):
            raise NotFoundError(
                "private keys need ssh-agent and ssh-add, which are not installed",
                "install openssh-client, or name the socket of an agent",
            )
        if not self._directory:
            self._directory = tempfile.mkdtemp(prefix="ketch-agents-")
        path = f"{self._directory}/{len(self._programs)}"
        program = subprocess.Popen(
            ["ssh-agent", "-D", "-a", path], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        )
        self._programs.append(program)
        assert program.stdout is not None
        program.stdout.readline()  # it says where it listens as soon as it does
        for key in source.paths:
            try:
                added = subprocess.run(
                    ["ssh-add", "-q", key], env={**self._environment, "SSH_AUTH_SOCK": path},
                    stdin=subprocess.DEVNULL, capture_output=True, timeout=_AGENT_SECONDS,
                    check=False,
                )  # fmt: skip
            except subprocess.TimeoutExpired as error:
                raise InvalidArgumentError(
                    f"cannot use the key {key}: it asks something"
                ) from error
            if added.returncode:
                said = added.stderr.decode(errors="replace").strip()
                raise InvalidArgumentError(f"cannot use the key {key}: {said}")
        return path
