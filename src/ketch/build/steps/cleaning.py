"""What builds left that were killed, taken away by the next command.

It is looked for by every build, and mostly not there: what takes it away is loaded when it is.
"""

import os
from contextlib import suppress

from ketch.build.steps import caches
from ketch.engine.engine import Engine
from ketch.errors import KetchError


def clean(engine: Engine) -> None:
    """Take away the control groups, links, addresses and half caches of steps that were killed.

    What a build keeps beneath ``ROOT/builds`` is the builder's to remove.

    Args:
        engine: of the calling thread.
    """
    clean_up(engine.settings.state)
    with suppress(OSError):
        caches.clean(engine.settings.root)
    with suppress(KetchError, OSError):
        with engine.store.reading() as connection:
            held = connection.execute("SELECT 1 FROM sandbox").fetchone()
        if held:
            from ketch.engine.networks import sandboxes  # noqa: PLC0415 see above

            sandboxes.clean(engine.settings, engine.store)


def clean_up(state: str) -> None:
    """Take away the control groups of steps whose process was killed.

    Args:
        state: the engine's state directory.
    """
    with suppress(KetchError, OSError):
        if os.listdir(f"{state}/steps"):
            from ketch.engine.monitor import stepping  # noqa: PLC0415 see above

            stepping.clean(state)
