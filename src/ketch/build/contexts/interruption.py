"""Having what waits in a way of its own break off, when the caller does not want it any more.

Who waits by a ``Patience`` hears of that while waiting. Libraries that read from sockets do not
wait by it; beside them a thread does, and breaks them off.
"""

import contextlib
import os
import select
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ketch.engine.processes import Patience


@contextlib.contextmanager
def broken_off_by(patience: "Patience", break_off: "Callable[[], object]") -> "Iterator[None]":
    """Do in a block what waits in a way of its own.

    Args:
        patience: how the caller waits. What it raises is raised at the block's end, whatever else
            went wrong in it.
        break_off: ends such waiting, from another thread; it is called once at the most.
    """
    raised: list[BaseException] = []
    done = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def watch() -> None:
        try:
            patience.poll(None, (done, select.POLLIN))
        except BaseException as error:  # noqa: BLE001 - raised in the caller's thread
            raised.append(error)
            break_off()

    thread = threading.Thread(target=watch, name="interruption", daemon=True)
    thread.start()
    try:
        yield
    except Exception:
        # Either the block failed of itself, or of having been broken off.
        _end(done, thread)
        if raised:
            raise raised[0] from None
        raise
    finally:
        _end(done, thread)
        os.close(done)
    if raised:
        raise raised[0]


def _end(done: int, thread: threading.Thread) -> None:
    with contextlib.suppress(OSError):
        os.eventfd_write(done, 1)
    thread.join()
