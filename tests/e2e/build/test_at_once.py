"""What builders share, by what the program shows: steps, and caches, also of builds at once."""

import os
import pathlib
import re
import select
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from tests.support.commands import Engine

pytestmark = pytest.mark.timeout(300)

FILES = "FROM busybox\nRUN true\nCOPY sub /sub\nRUN ls -lR /sub > /seen\n"


@pytest.fixture
def context(tmp_path: pathlib.Path) -> pathlib.Path:
    """Return a directory to build from."""
    made = tmp_path / "context"
    (made / "sub").mkdir(parents=True)
    (made / "sub" / "file").write_text("content\n")
    (made / "sub" / "link").symlink_to("file")
    (made / "Dockerfile").write_text(FILES)
    return made


@pytest.fixture(autouse=True)
def _cleared(ketch: Engine) -> Iterator[None]:
    yield
    ketch("builder", "prune", "--all", "--force")


def executed(engine: Engine, context: pathlib.Path) -> list[str]:
    """Build; return the steps that were not found again."""
    done = engine("build", "--progress=plain", str(context))
    assert done.status == 0, str(done)
    names = re.findall(r"^(#\d+) \[\d/4\] ((?:RUN|COPY) .*)$", done.err, re.MULTILINE)
    again = re.findall(r"^(#\d+) CACHED$", done.err, re.MULTILINE)
    return list(dict.fromkeys(name for number, name in names if number not in again))


def test_files_count_by_what_they_are_and_not_by_when(
    ketch: Engine, served_engine: Engine, context: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    every = ["RUN true", "COPY sub /sub", "RUN ls -lR /sub > /seen"]
    assert executed(ketch, context) == every
    # Other times, another directory, another face of the same engine: what is there is the same.
    file = context / "sub" / "file"
    os.utime(file, (1, 1))
    os.utime(context / "sub", (2, 2))
    os.chown(file, 7, 8)  # what a context has belongs to root in the image
    assert executed(ketch, context) == []
    elsewhere = shutil.copytree(context, tmp_path / "elsewhere", symlinks=True)
    assert executed(ketch, elsewhere) == []
    if not served_engine("buildx", "version").status:
        assert executed(served_engine, elsewhere) == []
    # Written anew with the same bytes and the same length of others, and back.
    for text, made in (("content\n", []), ("CONTENT\n", every[1:]), ("content\n", [])):
        file.unlink()
        file.write_text(text)
        assert executed(ketch, context) == made, text
    link = context / "sub" / "link"
    changes: list[Callable[[], object]] = [
        partial(file.chmod, 0o755),
        link.unlink,
        partial(link.symlink_to, "other"),
        partial(file.rename, context / "sub" / "renamed"),
        (context / "sub" / "empty").mkdir,
    ]
    for number, change in enumerate(changes):
        change()
        assert executed(ketch, context) == every[1:], number
        assert executed(ketch, context) == [], number


def test_builders_at_once_make_each_step_once(
    ketch: Engine, served_engine: Engine, context: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    (context / "Dockerfile").write_text(
        "FROM busybox\nRUN --mount=type=cache,id=once,target=/c echo x >> /c/log; sleep 1; "
        "wc -l < /c/log > /count\nRUN cp /count /copy\n"
    )
    others = [] if served_engine("buildx", "version").status else [served_engine]
    builders = [
        engine.start("build", "-q", "-t", f"builder-{number}", str(context))
        for number, engine in enumerate([ketch, ketch, *others])
    ]
    ids = set()
    for builder in builders:
        told, errors = builder.communicate(timeout=120)
        assert builder.returncode == 0, errors
        ids.add(told)
    assert len(ids) == 1
    assert ketch.ok("run", "--rm", "builder-0", "cat", "/count", "/copy") == "1\n1"
    ketch.ok("rmi", *(f"builder-{number}" for number in range(len(builders))))


def test_stages_wait_for_nobody_that_they_do_not_need(ketch: Engine, context: pathlib.Path) -> None:
    """Each waits until the other is there, so they end only where they run at once."""
    meet = (
        "RUN --mount=type=cache,id=meeting,target=/m touch /m/{0}; n=0; "
        "until [ -e /m/{1} ]; do sleep 0.1; n=$((n+1)); [ $n -lt 300 ] || exit 1; done; echo >/{0}"
    )
    (context / "Dockerfile").write_text(
        f"FROM busybox AS one\n{meet.format('a', 'b')}\nFROM busybox AS two\n"
        f"{meet.format('b', 'a')}\nFROM busybox AS unneeded\nRUN false\n"
        "FROM scratch\nCOPY --from=one /a /\nCOPY --from=two /b /\n"
    )
    ketch.ok("build", "-q", str(context), timeout=100)


class Running:
    """A build that goes on, with what it tells."""

    def __init__(self, engine: Engine, context: pathlib.Path, step: str) -> None:
        words = ("build", "--no-cache", "--progress=plain", "-f", "-", str(context))
        self._process = engine.start(*words, stderr=subprocess.STDOUT)
        assert self._process.stdin is not None
        self._process.stdin.write(f"FROM busybox\nRUN {step}\n".encode())
        self._process.stdin.close()
        self.told = ""

    def await_words(self, wanted: str, seconds: float = 60) -> bool:
        """Wait until something was told, or the time is up; say which."""
        assert self._process.stdout is not None
        deadline = time.monotonic() + seconds
        while not re.search(wanted, self.told, re.MULTILINE):
            left = max(deadline - time.monotonic(), 0)
            if not select.select([self._process.stdout], [], [], left)[0]:
                return False
            data = os.read(self._process.stdout.fileno(), 65536)
            if not data:
                return False
            self.told += data.decode()
        return True

    def end(self) -> list[str]:
        """Wait for the end; return what the step said."""
        self.await_words("(?!)")
        assert self._process.wait(60) == 0, self.told
        return re.findall(r"^#\d+ [\d.]+ (\w+)$", self.told, re.MULTILINE)


@pytest.mark.parametrize("sharing", ["", "private", "locked"])
def test_who_may_have_a_cache_at_the_same_time(
    ketch: Engine, context: pathlib.Path, sharing: str
) -> None:
    """Shared, as is the default: one directory for both. Private: another. Locked: in turns."""
    option = f",sharing={sharing}" if sharing else ""
    cache = f"--mount=type=cache,id=c-{sharing},target=/c{option}"
    signal = "--mount=type=cache,id=signal,target=/s"
    first = Running(
        ketch, context,
        f"{cache} {signal} rm -f /s/* /c/*; touch /c/first; echo begun; n=0; "
        "until [ -e /s/go ]; do sleep 0.05; n=$((n+1)); [ $n -lt 1200 ] || exit 1; done; "
        "rm /c/first; touch /c/ended",
    )  # fmt: skip
    assert first.await_words(r"begun$"), first.told
    second = Running(ketch, context, f"{cache} echo had; ls /c")
    assert second.await_words(r"\] RUN --mount")
    # Who need not wait ends while the first goes on.
    assert second.await_words(r" had$", 2 if sharing == "locked" else 60) is (sharing != "locked")
    if sharing != "locked":
        said = second.end()
    Running(ketch, context, f"{signal} touch /s/go").end()
    if sharing == "locked":
        said = second.end()
    assert first.end() == ["begun"]
    assert said == {
        "locked": ["had", "ended"], "private": ["had"],
    }.get(sharing, ["had", "first"])  # fmt: skip
    caches = ketch.ok("builder", "du", "--verbose", "--filter", "type=exec.cachemount")
    assert caches.count(f'with id "c-{sharing}"') == (2 if sharing == "private" else 1), caches
