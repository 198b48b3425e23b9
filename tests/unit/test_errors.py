"""Errors cross from process to process whole, as pools and queues hand them over."""

import copy
import errno
import importlib
import inspect
import pickle
import pkgutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

import ketch
from ketch import errors
from ketch.errors import (
    KetchError,
    ProgramFailedError,
    StartError,
    SyscallError,
    in_words,
)


def _kinds(kind: type[KetchError]) -> Iterator[type[KetchError]]:
    yield kind
    for below in kind.__subclasses__():
        yield from _kinds(below)


def _load_everything() -> None:
    for module in pkgutil.walk_packages(ketch.__path__, "ketch."):
        importlib.import_module(module.name)


def _made(kind: type[KetchError]) -> KetchError:
    """Make an error with a fact more than its arguments, as layers on its way out add them."""
    if issubclass(kind, ProgramFailedError):
        return kind("it ended", exit_status=3, stdout=b"out\xff", stderr=b"err")
    parameters = inspect.signature(kind).parameters.values()
    wanted = {one.name: 77 for one in parameters if one.kind is one.KEYWORD_ONLY}
    error = kind("what\x1b failed", "what to do", **wanted)
    error.exit_status = 77  # type: ignore[attr-defined]
    return error


def _facts(error: BaseException) -> tuple[object, ...]:
    return type(error), str(error), error.args, error.__dict__


def test_every_error_of_the_tree_is_pickled_whole() -> None:
    _load_everything()
    kinds = set(_kinds(KetchError))
    assert len(kinds) > 20
    for kind in kinds:
        error = _made(kind)
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            assert _facts(pickle.loads(pickle.dumps(error, protocol))) == _facts(error)
        assert _facts(copy.copy(error)) == _facts(error)


def test_a_failed_system_call_is_pickled_whole() -> None:
    error = SyscallError(errno.EPERM, "mount", "proc on /proc")
    found = pickle.loads(pickle.dumps(error))
    assert isinstance(found, SyscallError)
    assert (found.errno, found.call, found.detail) == (errno.EPERM, "mount", "proc on /proc")
    assert (found.strerror, str(found)) == (error.strerror, str(error))


def _fail(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    "error",
    [ProgramFailedError("it ended", exit_status=3, stdout=b"out\xff", stderr=b"err"),
     StartError("no such program", "look", exit_status=127),
     SyscallError(errno.ENOENT, "open", "/nowhere"), errors.NotFoundError("gone", "look again")],
    ids=lambda error: type(error).__name__,
)  # fmt: skip
def test_a_process_pool_raises_what_was_raised_in_it(error: BaseException) -> None:
    with ProcessPoolExecutor(1, get_context("fork")) as pool:
        raised = pool.submit(_fail, error).exception(timeout=30)
        assert raised is not None
        assert _facts(raised) == _facts(error)
        assert pool.submit(abs, -1).result(timeout=30) == 1


def test_what_an_error_says_at_the_end_of_a_message() -> None:
    missing = FileNotFoundError(errno.ENOENT, "No such file or directory", "/etc/x")
    assert in_words(missing) == "/etc/x: no such file or directory"
    assert in_words(missing, "/etc/x") == "no such file or directory"
    beneath = FileNotFoundError(errno.ENOENT, "No such file or directory", "x")
    assert in_words(beneath) == "no such file or directory"
    call = SyscallError(errno.EPERM, "mount", "/A on /B")
    assert in_words(call) == "mount(/A on /B): Operation not permitted"
    assert in_words(TimeoutError("it took too long")) == "it took too long"
    assert in_words(ValueError("no number: 'x'")) == "no number: 'x'"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é 字 👩\tand\nnext", "plain é 字 👩\tand\nnext"),
        ("a\xa0b\u3000c", "a\xa0b\u3000c"),  # blanks of other scripts
        ("\x1b[2J\x9b31m\x07\r\x7f\0", r"\x1b[2J\x9b31m\x07\r\x7f\x00"),
        (b"raw\x9b\xe9".decode(errors="surrogateescape"), r"raw\x9b\xe9"),
        ("\ud800", r"\ud800"),
        # What turns the direction of writing around, and what nobody sees.
        ("\u202egnp.exe\u2066\u200e\u200f\u061c", r"\u202egnp.exe\u2066\u200e\u200f\u061c"),
        ("a\u200bb\ufeff\xad\u2060", r"a\u200bb\ufeff\xad\u2060"),
        ("hidden\U000e0041", r"hidden\U000e0041"),
        ("one\u2028two\u2029\x85\v\f", r"one\u2028two\u2029\x85\x0b\x0c"),
    ],
)
def test_what_a_stranger_says_is_shown_and_not_obeyed(text: str, shown: str) -> None:
    assert errors.spelt_out(text) == shown
    assert errors.KetchError(text).message == shown
    assert errors.on_one_line(text) == shown.replace("\t", r"\t").replace("\n", r"\n")
