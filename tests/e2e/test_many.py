"""What commands do for each of many containers and images: counted, since times differ."""

import os
import pathlib
import re
import secrets
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Sequence

import pytest

from tests.support import images
from tests.support.commands import Engine

pytestmark = pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")

MANY = 200
# What grows with the database and with memory, a page at a time.
BY_THE_PAGE = {"pread64", "pwrite64", "brk", "mmap", "munmap", "mremap", "madvise", "ftruncate"}


@pytest.fixture
def lone(tmp_path: pathlib.Path) -> Engine:
    """An engine of its own that starts nothing, with an image and a container."""
    program = pathlib.Path(sys.executable).with_name("ketch")
    places = ["--root", f"{tmp_path}/root", "--state", f"{tmp_path}/state"]
    found = Engine("ketch", [str(program), "--no-zygote", *places])
    found.ok("import", str(images.busybox_archive()), "busybox")
    found.ok("create", "--name", "first", "busybox", "true")
    return found


def database(lone: Engine) -> sqlite3.Connection:
    root = lone.prefix[lone.prefix.index("--root") + 1]
    connection = sqlite3.connect(f"{root}/ketch.db")
    connection.row_factory = sqlite3.Row
    return connection


def multiply(lone: Engine, table: str, changes: "Sequence[dict[str, str]]") -> None:
    """Record more of what a table has a row of: to make as many would take minutes."""
    connection = database(lone)
    row = dict(connection.execute(f"SELECT * FROM {table} LIMIT 1").fetchone())
    marks = ", ".join("?" * len(row))
    with connection:
        for change in changes:
            values = tuple((row | change).values())
            connection.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})", values)
    connection.close()


def more_containers(lone: Engine, number: int) -> list[str]:
    names = [f"more{secrets.token_hex(4)}" for _ in range(number)]
    multiply(lone, "container", [{"id": secrets.token_hex(32), "name": name} for name in names])
    return names


def calls(lone: Engine, *arguments: str, log: pathlib.Path) -> list[str]:
    """The system calls of a command that succeeds, a line each."""
    environment = {key: value for key, value in os.environ.items() if "BYTECODE" not in key}
    subprocess.run(["strace", "-f", "-q", "-s", "300", "-o", str(log), *lone.prefix, *arguments],
                   check=True, capture_output=True, env=environment)  # fmt: skip
    return log.read_text(errors="replace").splitlines()


def few(lines: list[str]) -> dict[str, int]:
    """How many calls there are of each kind, but for those by the page."""
    found: dict[str, int] = {}
    for line in lines:
        if (name := re.match(r"\d+ +(\w+)\(", line)) and name[1] not in BY_THE_PAGE:
            found[name[1]] = found.get(name[1], 0) + 1
    return found


def transactions(lines: list[str]) -> int:
    """How many began that write: each takes the log's lock for writers (sqlite, wal.c)."""
    return sum("F_WRLCK" in line and "l_start=120," in line for line in lines)


@pytest.mark.parametrize("words", [["ps", "-a"], ["ps", "-a", "--format", "json"]])
def test_a_list_asks_nothing_for_each_container(
    lone: Engine, tmp_path: pathlib.Path, words: list[str]
) -> None:
    log = tmp_path / "calls"
    counted = []
    for number in (3, MANY):
        more_containers(lone, number)
        lone.ok(*words)  # who is first after that makes the database's log anew
        counted.append(few(calls(lone, *words, log=log)))
    few_containers, many_containers = counted
    written = many_containers.pop("write") - few_containers.pop("write")
    assert written <= 20  # the table itself, a buffer at a time
    assert sum(many_containers.values()) - sum(few_containers.values()) <= 20


def test_a_list_loads_nothing_that_works_on_containers(lone: Engine) -> None:
    lone.ok("ps", "-a")
    command = [sys.executable, "-X", "importtime", *lone.prefix, "ps", "-a"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    unwanted = ("ketch.cgroups", "ketch.network", "ketch.runtime", "ketch.images.snapshots",
                "ketch.engine.containers", "ctypes", "_hashlib", "ipaddress", "socket")  # fmt: skip
    assert [name for name in sorted(loaded) if name.startswith(unwanted)] == []


def test_many_containers_are_removed_in_few_transactions(
    lone: Engine, tmp_path: pathlib.Path
) -> None:
    log = tmp_path / "calls"
    counted = [
        transactions(calls(lone, "rm", *more_containers(lone, number), log=log))
        for number in (3, MANY)
    ]
    assert counted[1] - counted[0] <= MANY / 4
    assert lone.ok("ps", "-a", "--format", "{{.Names}}") == "first"


def test_removing_many_names_publishes_what_is_left_once(
    lone: Engine, tmp_path: pathlib.Path
) -> None:
    log = tmp_path / "calls"
    counted = []
    for number in (3, MANY):
        names = [f"name:{one}" for one in range(number)]
        given = [{"reference": f"docker.io/library/{name}"} for name in names]
        multiply(lone, "image_name", given)
        lone.ok("tag", "busybox", "last")  # publishes these as well
        counted.append(calls(lone, "rmi", *names, "last", log=log))
    assert transactions(counted[0]) == transactions(counted[1])
    for lines in counted:
        assert sum("/index.json" in line and "rename(" in line for line in lines) == 1
        assert sum(" fsync(" in line for line in lines) == 1
    growth = sum(few(counted[1]).values()) - sum(few(counted[0]).values())
    assert growth <= 6 * MANY
    assert lone.ok("images", "-q").count("\n") == 0


def test_a_change_reads_no_manifest_of_other_images(lone: Engine, tmp_path: pathlib.Path) -> None:
    """However many there are: index.json has what it says of each from before."""
    log = tmp_path / "calls"
    source = lone.ok("images", "--no-trunc", "-q")
    counted = []
    for number in range(3):
        lone.ok("commit", "first", f"other:{number}")
        lines = calls(lone, "tag", source, f"busybox:{number}", log=log)
        counted.append(sum("openat" in line and "/blobs/" in line for line in lines))
    assert counted[0] == counted[2]
