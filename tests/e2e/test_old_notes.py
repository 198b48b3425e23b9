"""The command lines of the notes that ketch grew out of, with ``ketch`` for ``./mydocker``."""

import pathlib

import pytest

from tests.support.commands import Engine, finish


@pytest.mark.parametrize(
    "line",
    [
        "run -ti busybox sh",
        "run -it busybox sh",
        "run -ti -m 100m busybox sh",
        "run -ti -m 100m -cpuset 0 -cpushare 512 busybox sh",
        "run -ti -name bird busybox sh",
        "run -ti -net bridge busybox sh",
        "run -ti -name bird -net none busybox sh",
    ],
)
def test_interactive(ketch: Engine, line: str) -> None:
    child = ketch.terminal(*line.split())
    child.expect("# ")
    child.sendline("echo in $$; exit 0")
    child.expect("in 1\r\n")
    assert finish(child) == 0
    ketch.ok("rm", ketch.ok("ps", "-aq"))


def test_background(ketch: Engine) -> None:
    ketch.ok("run", "-d", "-name", "bird", "busybox", "top")
    assert "bird" in ketch.ok("ps")
    assert "top" in ketch.ok("exec", "bird", "ps")
    ketch.ok("stop", "-t", "1", "bird")
    ketch.ok("rm", "bird")


def test_the_old_spellings_are_the_usual_flags(ketch: Engine) -> None:
    out = ketch.ok("run", "--rm", "-cpuset", "0", "-net", "none", "-m", "100m", "busybox",
                   "grep", "Cpus_allowed_list", "/proc/self/status")  # fmt: skip
    assert out.split()[1] == "0"


def test_volume_and_environment(ketch: Engine, tmp_path: pathlib.Path) -> None:
    out = ketch.ok("run", "--rm", "-v", f"{tmp_path}:/to1", "-e", "bird=123", "-e", "luck=bird",
                   "busybox", "sh", "-c", "echo $bird $luck; touch /to1/x")  # fmt: skip
    assert out == "123 bird"
    assert (tmp_path / "x").exists()
