"""What a container can be, and what makes it something else.

The store keeps the outcome of the last event. What a user sees is derived from that and from
facts about processes, because a process can end without anyone left to say so.
"""

from ketch.errors import ConflictError

CREATING = "creating"  # not to be seen by others yet
CREATED = "created"
RUNNING = "running"
PAUSED = "paused"
RESTARTING = "restarting"
REMOVING = "removing"
EXITED = "exited"
DEAD = "dead"

# event -> state before -> state after
TRANSITIONS = {
    "create": {CREATING: CREATED},
    "start": {CREATED: RUNNING, EXITED: RUNNING, RESTARTING: RUNNING},
    # The program could not be started. A container that never ran stays `created`, as in Docker.
    "start-failed": {CREATED: CREATED, EXITED: EXITED, RESTARTING: EXITED},
    "exit": {RUNNING: EXITED, RESTARTING: EXITED},
    "exit-to-restart": {RUNNING: RESTARTING},
    # Also from `removing`: whoever finds a removal that was interrupted begins it again.
    "remove": {
        CREATING: CREATING, CREATED: REMOVING, EXITED: REMOVING, DEAD: REMOVING, REMOVING: REMOVING,
    },
    "remove-failed": {REMOVING: DEAD},
}  # fmt: skip

# States in which a container has, or is about to have, a process.
ACTIVE = frozenset({RUNNING, PAUSED, RESTARTING})


def next_state(state: str, event: str) -> str:
    """Returns the state that an event leads to.

    Raises:
        ConflictError: the event cannot happen in this state.
    """
    try:
        return TRANSITIONS[event][state]
    except KeyError:
        raise ConflictError(f"{event}: not possible while the container is {state}") from None


class Facts:
    """What /proc says about the processes that a container's record names.

    Args:
        init: whether the container's first process is alive.
        keeper: whether the process in charge is alive, None where none is, or where init lives. In
            charge is the container's monitor, or the process that creates, starts or removes it.
        frozen: whether the container's processes are held by its cgroup.
    """

    __slots__ = ("frozen", "init", "keeper")

    def __init__(self, *, init: bool, keeper: bool | None, frozen: bool = False) -> None:
        self.init = init
        self.keeper = keeper
        self.frozen = frozen


def derive(state: str, facts: Facts) -> tuple[str, bool]:
    """Returns what a container is, and whether it was left behind.

    A container is left behind when the process in charge died before its work was done: then an
    exit status may be lost, and what the container held is still to be released.

    Args:
        state: outcome of the last recorded event.
        facts: what is alive now.
    """
    # A container outlives its monitor. Between the end of init and its record by the monitor it
    # is still what it was.
    left_behind = facts.keeper is False and not facts.init
    if left_behind and state in ACTIVE:
        return EXITED, True
    if state == RUNNING and facts.frozen:
        return PAUSED, left_behind
    return state, left_behind
