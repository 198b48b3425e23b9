"""The conversation between init and its parent, over a real socket pair in one process."""

import errno
import os
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.errors import (
    ConflictError,
    InvalidArgumentError,
    KetchError,
    NotFoundError,
    StartError,
    SyscallError,
    UnavailableError,
    UnsupportedError,
    spelt_out,
)
from ketch.runtime.handshake import Channel, run_child
from ketch.spec.told import Told


@pytest.fixture
def ends() -> Iterator[tuple[Channel, Channel]]:
    parent, init = Channel.pair()
    yield parent, init
    parent.close()
    init.close()


def test_points_arrive_in_their_order(ends: tuple[Channel, Channel]) -> None:
    parent, init = ends
    init.reached("hooks")
    init.reached("born 77")
    assert parent.await_point() == ("hooks", None)
    assert parent.await_point() == ("born 77", None)


def test_a_descriptor_comes_along_close_on_exec(ends: tuple[Channel, Channel]) -> None:
    parent, init = ends
    reader, writer = os.pipe()
    init.reached("console", writer)
    os.close(writer)
    point, received = parent.await_point()
    assert point == "console"
    assert received is not None
    assert not os.get_inheritable(received)
    os.write(received, b"through")
    assert os.read(reader, 10) == b"through"
    os.close(received)
    os.close(reader)


def test_the_word_to_go_on(ends: tuple[Channel, Channel]) -> None:
    parent, init = ends
    parent.go("start")
    init.await_go("start")
    parent.go("begin")
    with pytest.raises(UnavailableError, match="waited for 'start' and was told"):
        init.await_go("start")


def test_the_end_of_either_side(ends: tuple[Channel, Channel]) -> None:
    parent, init = ends
    init.close()
    assert parent.await_point() == ("executed", None)
    other_parent, other_init = Channel.pair()
    other_parent.close()
    with pytest.raises(UnavailableError):
        other_init.await_go("start")
    other_init.close()


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.EINVAL, os.strerror(errno.EINVAL)), "invalid argument"),
        (FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "/x"), "/x: no such file or"),
    ],
)
def test_what_the_kernel_refused_is_told_in_words(
    ends: tuple[Channel, Channel], error: OSError, told: str
) -> None:
    parent, init = ends
    init.failed(error)
    with pytest.raises(KetchError, match=told) as raised:
        parent.await_point()
    assert "Errno" not in str(raised.value)


@pytest.mark.parametrize(
    "kind",
    [ConflictError, InvalidArgumentError, NotFoundError, UnavailableError, UnsupportedError],
)
def test_an_error_is_raised_anew_as_itself(
    ends: tuple[Channel, Channel], kind: type[KetchError]
) -> None:
    parent, init = ends
    init.failed(kind("what", "do this"))
    with pytest.raises(kind, match="what") as caught:
        parent.await_point()
    assert type(caught.value) is kind
    assert caught.value.hint == "do this"


def test_a_start_error_keeps_its_status(ends: tuple[Channel, Channel]) -> None:
    parent, init = ends
    init.failed(StartError("no such", exit_status=127))
    with pytest.raises(StartError) as caught:
        parent.await_point()
    assert caught.value.exit_status == 127


def test_an_unexpected_error_still_has_words(ends: tuple[Channel, Channel]) -> None:
    parent, init = ends
    init.failed(ZeroDivisionError())
    with pytest.raises(UnavailableError, match="ZeroDivisionError"):
        parent.await_point()


@given(st.text())
def test_any_words_arrive(words: str) -> None:
    parent, init = Channel.pair()
    try:
        init.failed(InvalidArgumentError(words * 1000))
        with pytest.raises(InvalidArgumentError) as caught:
            parent.await_point()
        assert caught.value.message == spelt_out(words * 1000)[:4096] or not words
    finally:
        parent.close()
        init.close()


def test_what_is_said_on_the_way_is_heard_before_the_point(ends: tuple[Channel, Channel]) -> None:
    parent, init = ends
    heard: list[str] = []
    parent.hear = lambda told: heard.append(str(told))
    init.say(Told("files", "one", [("mode", "0755")]))
    init.say(Told("files", "two"))
    init.reached("created")
    init.say(Told("program", "three", [("long", "x" * 3000), ("longer", "y" * 9000)]))
    assert parent.await_point() == ("created", None)
    assert heard == ["one\n  mode = 0755", "two"]
    init.close()
    assert parent.await_point() == ("executed", None)
    assert heard[2:] == [f"three\n  long = {'x' * 3000}\n  longer = {'y' * 9000}"]


def test_saying_something_to_nobody_is_no_failure(ends: tuple[Channel, Channel]) -> None:
    parent, init = ends
    parent.close()
    init.say(Told("files", "anyone there?"))


def _end_of(error: BaseException, parent: Channel | None, init: Channel) -> int:
    def work() -> None:
        raise error

    pid = os.fork()
    if pid == 0:
        if parent:
            parent.close()
        run_child(init, work)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_a_child_that_fails_reports_and_ends(ends: tuple[Channel, Channel]) -> None:
    parent, init = ends
    assert _end_of(SyscallError(1, "mount", "x"), parent, init) == 1
    with pytest.raises(UnsupportedError, match=r"kernel refused.*mount\(x\)"):
        parent.await_point()


def test_a_child_whose_parent_has_gone_ends_with_the_error_s_status() -> None:
    parent, init = Channel.pair()
    parent.close()
    assert _end_of(StartError("no such", exit_status=127), None, init) == 127
    init.close()
