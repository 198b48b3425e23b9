"""What a step has come to, for whoever tells other builders of it."""

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from ketch.build.states import State


class Made(NamedTuple):
    """What a step has come to.

    Attributes:
        key: the step's.
        state: its files, its own layer the topmost.
    """

    key: str
    state: "State"
