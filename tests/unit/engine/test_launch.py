"""Which callers share a zygote, and what it is started with."""

import os
import subprocess
import sys

import pytest

from ketch.engine.requests import launch
from ketch.engine.settings import Settings
from ketch.errors import UnavailableError
from tests.support.descriptors import open_now

NAME = "from ketch.engine.requests.launch import zygote_name; print(zygote_name())"


def name_under(*prefix: str, **options: object) -> str:
    command = [*prefix, sys.executable, "-c", NAME]
    done = subprocess.run(command, check=True, capture_output=True, text=True, **options)  # type: ignore[call-overload]
    return str(done.stdout).strip()


def test_callers_who_differ_in_what_a_zygote_sets_share_one() -> None:
    assert name_under() == name_under(
        "sh", "-c", "umask 077; exec 9</dev/null; cd /; trap '' INT; exec \"$@\"", "sh",
        env={**os.environ, "A": "b"}, start_new_session=True,
    )  # fmt: skip


@pytest.mark.parametrize(
    "prefix",
    [
        ["prlimit", "--nofile=100:200"],
        ["prlimit", "--core=0:0"],
        ["nice", "-n", "3"],
        ["chrt", "--batch", "0"],
        ["choom", "-n", "500", "--"],
        ["setarch", "--addr-no-randomize"],
        ["setpriv", "--no-new-privs"],
        pytest.param(["setpriv", "--bounding-set=-sys_time"], marks=pytest.mark.root),
        pytest.param(["setpriv", "--clear-groups", "--regid=12345"], marks=pytest.mark.root),
        pytest.param(["unshare", "--uts"], marks=pytest.mark.root),
        pytest.param(["unshare", "--mount"], marks=pytest.mark.root),
        pytest.param(
            ["taskset", "1"],
            marks=pytest.mark.skipif(os.cpu_count() == 1, reason="there is one CPU only"),
        ),
    ],
    ids=" ".join,
)
def test_callers_who_differ_in_what_is_inherited_do_not(prefix: list[str]) -> None:
    assert name_under(*prefix) != name_under()


def test_descriptors_stay_clear_of_those_to_be_filled() -> None:
    program = (
        "import os; from ketch.engine.requests.launch import _above\n"
        "os.closerange(0, 5)\n"
        "moved = [_above(os.open('/dev/null', os.O_RDWR)) for _ in range(3)]\n"
        "os._exit(0 if min(moved) > 3 and len(set(moved)) == 3 else 1)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.parametrize("state", ["/proc/none", "/dev/null", "/dev/null/below"])
def test_a_state_directory_that_cannot_be_is_told(state: str) -> None:
    with pytest.raises(UnavailableError, match="state directory") as caught:
        launch.connect(Settings("/nowhere", state))
    assert "--state" in caught.value.hint


def test_an_interpreter_that_cannot_be_started_is_told(
    tmp_path: os.PathLike[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    before = open_now()
    for zygote in (True, False):
        with pytest.raises(UnavailableError, match="cannot start /no/such/python"):
            launch.connect(Settings("/nowhere", str(tmp_path), zygote=zygote))
    assert set(os.listdir("/proc/self/fd")) == before


def test_a_socket_nobody_listens_on_is_taken_over(tmp_path: os.PathLike[str]) -> None:
    directory = os.open(tmp_path, os.O_PATH)
    try:
        stale = launch.listen(directory, "zygote-x")
        assert launch._reach(directory, "zygote-x") is not None
        stale.close()
        assert launch._reach(directory, "zygote-x") is None
        listener = launch.listen(directory, "zygote-x")
        assert launch._reach(directory, "zygote-x") is not None
        listener.close()
        assert os.stat(f"{tmp_path}/zygote-x.socket").st_mode & 0o777 == 0o600
    finally:
        os.close(directory)
