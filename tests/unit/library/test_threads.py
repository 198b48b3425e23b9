"""Calls in threads, and how they are called off: before they begin, meanwhile, and afterwards."""

import pathlib
import threading

import pytest

from ketch.engine.settings import Settings
from ketch.errors import UnavailableError
from ketch.library.interruption import CalledOffError
from ketch.library.places import Places
from ketch.library.threads import Call, Threads


@pytest.fixture
def places(tmp_path: pathlib.Path) -> Places:
    return Places(Settings(str(tmp_path / "root"), str(tmp_path / "state")))


class Ended:
    """The end of a call, to be waited for."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def __call__(self, _call: Call) -> None:
        self._event.set()

    def wait(self) -> None:
        assert self._event.wait(30)


def test_what_is_called_off_before_it_begins_is_never_done(places: Places) -> None:
    done: list[int] = []
    ended = Ended()
    call = Call(lambda: done.append(1), ended)
    assert call.call_off() is None
    Threads(places).submit(call)
    ended.wait()
    assert (done, type(call.error)) == ([], CalledOffError)


def test_what_waits_is_ended_and_the_next_call_is_none_the_wiser(places: Places) -> None:
    threads, begun, ended, after = Threads(places), threading.Event(), Ended(), Ended()

    def wait() -> None:
        begun.set()
        places.patience.wait(None)

    call = Call(wait, ended)
    threads.submit(call)
    assert begun.wait(30)
    call.call_off()
    ended.wait()
    assert isinstance(call.error, CalledOffError)
    again = Call(lambda: places.patience.wait(0), after)
    threads.submit(again)
    after.wait()
    assert (again.error, again.result) == (None, False)


def test_what_must_be_done_is_done_even_so(places: Places) -> None:
    threads, begun, go, ended = Threads(places), threading.Event(), threading.Event(), Ended()
    put_away: list[int] = []

    def work() -> None:
        with places.uninterrupted():
            begun.set()
            assert go.wait(30)
            places.patience.wait(1)
            put_away.append(1)
        places.patience.wait(None)

    call = Call(work, ended)
    threads.submit(call)
    assert begun.wait(30)
    assert call.is_attended_to
    call.call_off()
    go.set()
    ended.wait()
    assert (put_away, type(call.error)) == ([1], CalledOffError)


def test_what_has_been_made_for_nobody_is_put_away_by_whoever_comes_second(places: Places) -> None:
    threads, ended = Threads(places), Ended()
    made: list[str] = ["made"]

    def make() -> str:
        places.unless_delivered(made.clear)
        return "made"

    call = Call(make, ended)
    threads.submit(call)
    ended.wait()
    assert (call.result, made) == ("made", ["made"])
    undo = call.call_off()
    assert undo is not None
    undo()
    assert made == []
    assert call.call_off() is None

    made.append("made")
    begun, go, late = threading.Event(), threading.Event(), Ended()

    def make_slowly() -> str:
        begun.set()
        assert go.wait(30)
        return make()

    call = Call(make_slowly, late)
    threads.submit(call)
    assert begun.wait(30)
    assert call.call_off() is None
    go.set()
    late.wait()
    assert (call.result, made) == (None, [])


def test_after_the_end_nothing_is_done_but_what_puts_away(places: Places) -> None:
    threads, ended = Threads(places), Ended()
    threads.close()
    with pytest.raises(UnavailableError, match="closed"):
        threads.submit(Call(lambda: None, lambda _: None))
    certain = Call(lambda: 5, ended, certain=True)
    certain.call_off()
    threads.submit(certain)
    ended.wait()
    assert (certain.result, certain.error) == (5, None)
