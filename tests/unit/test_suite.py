"""What the suite is to its tests: the same, however it was started."""

import os
import pathlib
import subprocess
import sys

import pytest

from tests.support import images, leftovers
from tests.support.images import CHECKOUT

_TELL = """
import signal
from tests import conftest
conftest.heed_signals()
print([signal.getsignal(n).__name__ for n in (signal.SIGINT,)])
print(open("/proc/self/status").read().partition("SigIgn:")[2].split()[0])
"""


def test_signals_are_heeded_that_a_shell_had_ignored() -> None:
    """As in ``nohup make test &``; what the tests start would ignore them as well."""
    told = subprocess.run(
        ["sh", "-c", "trap '' HUP INT QUIT; exec \"$0\" -c \"$1\"", sys.executable, _TELL],
        cwd=CHECKOUT, check=True, capture_output=True, text=True,
    ).stdout.split()  # fmt: skip
    assert told[0] == "['default_int_handler']"
    assert int(told[1], 16) & 0b111 == 0


def test_a_failure_may_show_any_bytes(tmp_path: pathlib.Path) -> None:
    """A worker could not tell of it, and the run ended."""
    test = tmp_path / "test_it.py"
    test.write_text("def test_it():\n    assert chr(0xdcff) == 'x', 'told ' + chr(0xdcff)\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-p", "no:cacheprovider",
         "-n", "1", "--rootdir", str(tmp_path), str(test)],
        cwd=CHECKOUT, env=os.environ | {leftovers.SHARED_VARIABLE: "1"}, check=False,
        capture_output=True, text=True,
    )  # fmt: skip
    assert "told \\udcff" in done.stdout, done
    assert "1 failed" in done.stdout


@pytest.mark.root
def test_what_makes_images_has_its_files_in_memory_and_leaves_none(tmp_path: pathlib.Path) -> None:
    tell = 'stat -f -c %T "$TMPDIR"; mkdir "$TMPDIR/made"; chmod 0 "$TMPDIR/made"; pwd; exit 3'
    mounts = pathlib.Path("/proc/self/mountinfo").read_text().count(str(tmp_path))
    done = subprocess.run(
        [*images.IN_MEMORY, "sh", "-c", tell],
        cwd=tmp_path, env=os.environ | {"TMPDIR": str(tmp_path)}, check=False,
        capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (3, "")
    assert done.stdout.split() == ["tmpfs", str(tmp_path)]
    assert list(tmp_path.iterdir()) == []
    assert pathlib.Path("/proc/self/mountinfo").read_text().count(str(tmp_path)) == mounts
