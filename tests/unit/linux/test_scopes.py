import contextlib
import errno

import pytest

from ketch.linux import scopes


@pytest.mark.parametrize("kind", [scopes.ExitStack, contextlib.ExitStack])
class TestExitStack:
    def test_calls_the_last_first(self, kind: type[scopes.ExitStack]) -> None:
        called: list[int] = []
        with kind() as stack:
            stack.callback(called.append, 1)
            stack.callback(called.append, 2)
            assert called == []
        assert called == [2, 1]

    def test_calls_all_whatever_fails(self, kind: type[scopes.ExitStack]) -> None:
        called: list[int] = []

        def fail(word: str) -> None:
            raise ValueError(word)

        def fill() -> None:
            with kind() as stack:
                stack.callback(called.append, 1)
                stack.callback(fail, "one")
                stack.callback(called.append, 2)
                stack.callback(fail, "two")

        with pytest.raises(ValueError, match="one"):
            fill()
        assert called == [2, 1]

    def test_lets_the_blocks_error_through(self, kind: type[scopes.ExitStack]) -> None:
        called: list[int] = []

        def work() -> None:
            with kind() as stack:
                stack.callback(called.append, 1)
                raise KeyError

        with pytest.raises(KeyError):
            work()
        assert called == [1]


def test_suppress() -> None:
    with scopes.suppress(OSError, KeyError):
        raise FileNotFoundError
    with pytest.raises(ValueError, match="other"), scopes.suppress(OSError):
        raise ValueError("other")
    with scopes.suppress(OSError):
        pass


def test_what_is_absent_ends_the_block_and_want_does_not() -> None:
    for number in (errno.ENOENT, errno.EACCES, errno.ESTALE):
        with scopes.suppress_absence():
            raise OSError(number, "looked for")
    for number in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
        with pytest.raises(OSError, match="wanting"), scopes.suppress_absence():
            raise OSError(number, "wanting")
    with pytest.raises(ValueError, match="other"), scopes.suppress_absence():
        raise ValueError("other")
