"""Logs that are sent: what arrives, and what happens while nobody listens."""

import json
import pathlib
import re
import socket
from typing import Any

import pytest

from ketch.engine import logs
from ketch.engine.logs import remote
from ketch.engine.records.rows import Container
from ketch.engine.records.store import Store
from ketch.errors import UnavailableError, UnsupportedError

NOW = 1_136_214_245_123_456_789
ID = "0123456789abcdef" * 4


def container(tmp_path: pathlib.Path, driver: str, **options: str) -> Container:
    config = {name.replace("_", "-"): text for name, text in options.items()}
    record = {
        "Path": "true",
        "Config": {"Labels": {"a.b": "1", "c": "2"}, "Env": ["X=y"]},
        "HostConfig": {"LogConfig": {"Type": driver, "Config": config}},
    }
    with Store(str(tmp_path)).reading() as connection:
        columns = [row["name"] for row in connection.execute("PRAGMA table_info(container)")]
    values: dict[str, Any] = dict.fromkeys(columns, 0) | {
        "id": ID, "name": "web", "image_id": "sha256:" + ID, "image_reference": "busybox",
        "boot_id": "", "state": "exited", "error": "",
    }  # fmt: skip
    values["record"] = json.dumps(record)
    return Container(values.values(), "")


@pytest.fixture
def listener() -> Any:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
        opened.bind(("127.0.0.1", 0))
        opened.settimeout(5)
        yield opened


@pytest.mark.parametrize(
    ("form", "pattern"),
    [
        ("", r"<{}>Jan  2 \d\d:04:05 web/0123456789ab\[\d+\]: {}\n"),
        ("rfc3164", r"<{}>Jan  2 \d\d:04:05 \S+ web/0123456789ab\[\d+\]: {}\n"),
        ("rfc5424",
         r"<{}>1 2006-01-02T15:04:05Z \S+ web/0123456789ab \d+ web/0123456789ab - {}\n"),
        ("rfc5424micro",
         r"<{}>1 2006-01-02T15:04:05.123456Z \S+ web/0123456789ab \d+ web/0123456789ab - {}\n"),
    ],
)  # fmt: skip
def test_syslog_by_udp(
    tmp_path: pathlib.Path, listener: socket.socket, form: str, pattern: str
) -> None:
    address = f"udp://127.0.0.1:{listener.getsockname()[1]}"
    made = container(
        tmp_path, "syslog", syslog_address=address, syslog_format=form,
        syslog_facility="local0", tag="{{.Name}}/{{.ID}}",
    )  # fmt: skip
    writer = logs.writer(made, str(tmp_path))
    assert writer is not None
    writer.write("stdout", b"one\ntw", NOW)
    writer.write("stderr", b"bad\n", NOW)
    writer.close(NOW)
    got = [listener.recv(1000).decode() for _ in range(3)]
    for text, expected in zip(got, [(134, "one"), (131, "bad"), (134, "tw")], strict=True):
        assert re.fullmatch(pattern.format(*expected), text), text
    kept = [(stream, data) for _, stream, data, _ in logs.reader(made, str(tmp_path)).entries()]
    assert kept == [("stdout", b"one\n"), ("stderr", b"bad\n"), ("stdout", b"tw")]


def test_syslog_by_tcp_without_a_cache(tmp_path: pathlib.Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        made = container(tmp_path, "syslog", syslog_address=address, cache_disabled="true")
        writer = logs.writer(made, str(tmp_path))
        assert writer is not None
        writer.write("stdout", b"one\ntwo\n", NOW)
        writer.close(NOW)
        connection, _ = server.accept()
        with connection:
            text = connection.makefile("rb").read().decode()
    assert [line.rpartition(": ")[2] for line in text.splitlines()] == ["one", "two"]
    with pytest.raises(UnsupportedError, match="does not support reading"):
        logs.reader(made, str(tmp_path))


def test_nobody_listens(tmp_path: pathlib.Path) -> None:
    made = container(tmp_path, "syslog", syslog_address="tcp://127.0.0.1:1")
    with pytest.raises(UnavailableError) as caught:
        logs.writer(made, str(tmp_path))
    assert caught.value.message == (
        "failed to initialize logging driver: dial tcp 127.0.0.1:1: connect: connection refused"
    )


def test_a_deaf_end_does_not_stop_a_container_that_must_not_block(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "deaf")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(path)
        server.listen()
        made = container(
            tmp_path, "syslog", syslog_address=f"unix://{path}", mode="non-blocking",
            max_buffer_size="100k",
        )  # fmt: skip
        writer = logs.writer(made, str(tmp_path))
        assert isinstance(writer, remote.Writer)
        for _ in range(100):
            writer.write("stdout", b"x" * 9999 + b"\n", NOW)
        assert 0 < writer.lost_bytes < 1_000_000
        connection, _ = server.accept()
        with connection:
            received = len(connection.recv(1 << 20))
            writer.flush()
            received += len(connection.recv(1 << 20))
    assert received + writer.lost_bytes > 500_000


def test_the_journal(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "socket")
    monkeypatch.setattr(remote, "_JOURNAL", path)
    made = container(tmp_path, "journald", labels="a.b", env="X", tag="t")
    with pytest.raises(UnavailableError, match="journald is not enabled on this host"):
        logs.writer(made, str(tmp_path))
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(path)
        writer = logs.writer(made, str(tmp_path))
        assert writer is not None
        writer.write("stderr", b"hi\nb\xff\n", NOW)
        writer.close(NOW)
        first, second = journal.recv(10_000), journal.recv(10_000)
    assert first.startswith(b"CONTAINER_ID=0123456789ab\nCONTAINER_ID_FULL=" + ID.encode())
    for field in (b"CONTAINER_NAME=web", b"CONTAINER_TAG=t", b"SYSLOG_IDENTIFIER=t", b"A_B=1",
                  b"X=y", b"MESSAGE=hi", b"PRIORITY=3", b"IMAGE_NAME=busybox"):  # fmt: skip
        assert b"\n" + field + b"\n" in first
    assert b"MESSAGE\n\x02\0\0\0\0\0\0\0b\xff\n" in second


def test_no_log(tmp_path: pathlib.Path) -> None:
    assert logs.writer(container(tmp_path, "none"), str(tmp_path)) is None
    with pytest.raises(UnsupportedError, match="does not support reading"):
        logs.reader(container(tmp_path, "none"), str(tmp_path))
