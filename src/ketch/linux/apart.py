"""Work in a thread of its own, which ends with it: what it changes of itself is nobody else's.

Namespaces, the working directory and ids are a thread's to the kernel: unshare(2), setns(2).
"""

import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeVar

    T = TypeVar("T")


def apart(work: "Callable[[], T]") -> "T":
    """Do something in a thread of its own, and wait for it.

    Args:
        work: what is done.

    Returns:
        What it returns; what it raises is raised here.
    """
    done: list[T] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            done.append(work())
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return done[0]
