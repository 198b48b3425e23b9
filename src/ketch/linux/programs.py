"""Other programs that are asked something: each has its time, as a peer has that is a process."""

import subprocess
from collections.abc import Sequence

from ketch.errors import UnavailableError

SECONDS = 60.0
"""What answers of itself, or from /proc, has done so long before."""


def ask(
    words: Sequence[str], *, seconds: float = SECONDS, directory: str | None = None
) -> "subprocess.CompletedProcess[str]":
    """Run a program that reads nothing; returns what it has printed, and its status.

    Args:
        words: the program, and its arguments.
        seconds: how long it may take.
        directory: its working directory; the caller's where None.

    Raises:
        OSError: it cannot be started.
        UnavailableError: it has not ended in time, and was killed.
    """
    try:
        return subprocess.run(
            words, check=False, capture_output=True, text=True, errors="replace",
            stdin=subprocess.DEVNULL, timeout=seconds, cwd=directory,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise UnavailableError(
            f"{words[0]} has not ended within {seconds:.0f} seconds, and was killed",
            f"run it by hand: {' '.join(words[:8])}",
        ) from error
