"""``ketch serve`` as a process of its own, and what is asked of it."""

import contextlib
import http.client
import pathlib
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence


@contextlib.contextmanager
def served(
    command: Sequence[str], path: pathlib.Path, log: pathlib.Path, *options: str
) -> Iterator["subprocess.Popen[bytes]"]:
    """Run a server until the end of the block.

    Args:
        command: ``ketch`` with the options that give it places of its own.
        path: where the socket is to be.
        log: where its log goes.
        options: more options.
    """
    with log.open("ab") as file:
        server = subprocess.Popen(
            [*command, "serve", "--host", f"unix://{path}", *options],
            stdin=subprocess.DEVNULL, stdout=file, stderr=file,
        )  # fmt: skip
    try:
        await_answer(path, server)
        yield server
    finally:
        server.send_signal(signal.SIGTERM)
        try:
            server.wait(15)
        finally:
            server.kill()
            server.wait()


def await_answer(path: pathlib.Path, server: "subprocess.Popen[bytes]") -> None:
    """Wait until a server answers."""
    deadline = time.monotonic() + 20
    while True:
        try:
            if Connection(path).ask("GET", "/_ping")[0] == 200:
                return
        except OSError:
            pass
        assert server.poll() is None, "the server has ended"
        assert time.monotonic() < deadline, "the server does not answer"
        time.sleep(0.05)


class Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket.

    Args:
        path: the socket.
    """

    def __init__(self, path: pathlib.Path, timeout: float = 30) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = str(path)

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)

    def ask(
        self, method: str, target: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, bytes]:
        """Return an answer's status and body; what is sent is called JSON unless headers differ."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is not None:
            named.setdefault("Content-Type", "application/json")
        self.request(method, target, body, named)
        answer = self.getresponse()
        return answer.status, answer.read()
