"""TCP: mutual TLS, under the server's own names, for programs and not for pages; and floods."""

import contextlib
import json
import os
import pathlib
import shutil
import socket
import ssl
import subprocess
import tempfile
from collections.abc import Iterator

import pytest

from tests.support import serving
from tests.support.commands import Engine
from tests.support.users import UsersEngine

_KEY = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"


class Served:
    """A server on a Unix socket and on TCP."""

    def __init__(self, unix: pathlib.Path, port: int, directory: pathlib.Path) -> None:
        self.unix = unix
        self.address = f"tcp://127.0.0.1:{port}"
        self.port = port
        self.options = [
            f"--{name}={directory / file}"
            for name, file in (("tlscacert", "ca.pem"), ("tlscert", "cert.pem"),
                               ("tlskey", "key.pem"))
        ]  # fmt: skip
        self._context = ssl.create_default_context(cafile=str(directory / "ca.pem"))
        self._context.load_cert_chain(directory / "cert.pem", directory / "key.pem")

    def connect(self, name: str = "localhost") -> ssl.SSLSocket:
        raw = socket.create_connection(("127.0.0.1", self.port), 20)
        return self._context.wrap_socket(raw, server_hostname=name)

    def ask(self, target: str, *, method: str = "GET", **headers: str) -> tuple[int, bytes]:
        fields = {"Host": f"localhost:{self.port}", "Connection": "close"} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        with self.connect() as secure:
            secure.sendall(f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode())
            answer = b"".join(iter(lambda: secure.recv(65536), b""))
        return int(answer.split()[1]), answer.partition(b"\r\n\r\n")[2]


@pytest.fixture(scope="module")
def server(ketch_engine: Engine, run_name: str) -> Iterator[Served]:
    """Return a server whose certificate vouches for some names."""
    if not shutil.which("openssl"):
        pytest.skip("no openssl to make certificates with")
    with tempfile.TemporaryDirectory(prefix=f"{run_name}-") as place:
        directory = pathlib.Path(place)
        (directory / "names").write_text(
            "subjectAltName=DNS:localhost,IP:127.0.0.1,DNS:build.example.com,DNS:*.hosts.example.com\n"
            "basicConstraints=critical,CA:FALSE\n",
            encoding="ascii",
        )
        for command in (
            f"req -x509 {_KEY} -keyout ca.key -out ca.pem -subj /CN=authority -days 2",
            f"req {_KEY} -keyout key.pem -out csr.pem -subj /CN=localhost",
            "x509 -req -in csr.pem -CA ca.pem -CAkey ca.key -CAcreateserial -out cert.pem -days 2"
            " -extfile names",
        ):
            subprocess.run(
                ["openssl", *command.split()], cwd=directory, check=True, capture_output=True
            )
        if isinstance(ketch_engine, UsersEngine):
            for path in (directory, *directory.iterdir()):
                os.chown(path, ketch_engine.user.uid, ketch_engine.user.uid)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        found = Served(directory / "api.sock", port, directory)
        with serving.served(
            [*ketch_engine.prefix], found.unix, directory / "log", "--host", found.address,
            *found.options,
        ):  # fmt: skip
            yield found


def test_who_is_let_in(server: Served, ketch: Engine) -> None:
    trusted = Engine("docker", ["docker", "--host", server.address, "--tls", *server.options])
    assert "busybox" in trusted.ok("images")
    stranger = Engine("docker", ["docker", "--host", server.address, "--tls", server.options[0]])
    assert stranger("images").status == 1
    plain = Engine("docker", ["docker", "--host", server.address])
    assert plain("images").status == 1


def test_under_which_names(server: Served, ketch: Engine) -> None:
    for host in ("localhost", "127.0.0.1:1", "build.example.com:2376", "a.hosts.example.com",
                 socket.gethostname(), "[::1]"):  # fmt: skip
        assert server.ask("/_ping", Host=host) == (200, b"OK"), host
    for host in ("evil.example", "example.com", f"localhost.evil.example:{server.port}"):
        status, body = server.ask("/containers/json", Host=host)
        assert (status, "Host header" in json.loads(body)["message"]) == (403, True), host


def test_pages_in_a_browser(server: Served, ketch: Engine) -> None:
    own = f"https://localhost:{server.port}"
    assert server.ask("/_ping", Origin=own)[0] == 200
    for headers in (
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": own.replace("https", "http")},
        {"Origin": "https://localhost:1"},
        {"Sec_Fetch_Site": "cross-site"},
    ):
        for method, target in (("POST", "/containers/prune"), ("GET", "/containers/json")):
            assert server.ask(target, method=method, **headers)[0] == 403, headers


def test_hundreds_that_say_nothing(server: Served, ketch: Engine) -> None:
    """Neither the Unix socket nor those who are known are kept out by strangers."""
    with contextlib.ExitStack() as held:
        silent = held.enter_context(server.connect())
        flood = [
            held.enter_context(socket.create_connection(("127.0.0.1", server.port), 20))
            for _ in range(700)
        ]
        assert serving.Connection(server.unix).ask("GET", "/_ping") == (200, b"OK")
        assert server.ask("/_ping") == (200, b"OK")
        silent.sendall(b"GET /_ping HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert silent.recv(100).startswith(b"HTTP/1.1 200")
        flood[0].settimeout(5)
        assert flood[0].recv(1) == b"", "the first of them is there still"
