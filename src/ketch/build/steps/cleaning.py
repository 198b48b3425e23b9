"""What builds left that were killed, taken away by the next command."""

from contextlib import suppress

from ketch.build.steps import caches
from ketch.engine.engine import Engine
from ketch.engine.monitor import stepping
from ketch.engine.networks import sandboxes
from ketch.errors import KetchError


def clean(engine: Engine) -> None:
    """Take away the control groups, links, addresses and half caches of steps that were killed.

    What a build keeps beneath ``ROOT/builds`` is the builder's to remove.
    """
    with suppress(KetchError, OSError):
        stepping.clean(engine.settings)
    with suppress(OSError):
        caches.clean(engine.settings.root)
    with suppress(KetchError, OSError):
        sandboxes.clean(engine.settings, engine.store)
