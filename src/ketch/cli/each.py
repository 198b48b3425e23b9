"""Commands that do one thing to each of several things, and go on after a failure."""

import sys

from ketch.errors import KetchError, NotFoundError, spelt_out

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


def for_each(
    names: "Iterable[str]", action: "Callable[[str], str]", *, absent_is_fine: bool = False
) -> int:
    """Do something to each thing, and print what comes of it.

    Args:
        names: the things.
        action: what to do; returns the line to print.
        absent_is_fine: whether what is not there is told of, but is no failure.

    Returns:
        1 if anything failed, else 0.
    """

    def outcomes() -> "Iterator[tuple[str, KetchError | None]]":
        for name in names:
            try:
                line = action(name)
            except KetchError as error:
                yield name, error
            else:
                yield line, None

    return tell_each(outcomes(), absent_is_fine=absent_is_fine)


def tell_each(
    outcomes: "Iterable[tuple[str, KetchError | None]]", *, absent_is_fine: bool = False
) -> int:
    """Print what came of something that was done to each of several things.

    Args:
        outcomes: the line to print, and what went wrong instead, or None.
        absent_is_fine: whether what is not there is told of, but is no failure.

    Returns:
        1 if anything failed, else 0.
    """
    status = 0
    for line, error in outcomes:
        if error is None:
            print(line, flush=True)
            continue
        if absent_is_fine and isinstance(error, NotFoundError):
            say(KetchError(error.message))  # nothing is to be done about it
        else:
            say(error)
            status = 1
    return status


def say(error: KetchError) -> None:
    """Say what went wrong with one of several things, and what to do, on a line of its own."""
    sys.stdout.flush()
    hint = f" ({error.hint})" if error.hint else ""
    sys.stderr.write(f"ketch: {spelt_out(error.message + hint)}\n")
