"""Whether a container that has ended is started again, and when. Pure.

Source: Docker's restart manager: 100 ms doubling to a minute, begun anew after ten seconds of
running; a container that was stopped by hand stays stopped, but for ``always`` after a reboot.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.spec.container import RestartPolicy

FIRST_DELAY_MS = 100
LONGEST_DELAY_MS = 60_000
LONG_ENOUGH_NS = 10 * 10**9

NEVER = -1


class End:
    """How a container ended.

    Args:
        exit_status: what it ended with.
        ran_ns: how long it ran.
        restart_count: how often its policy has started it again since somebody last did.
        stopped_by_hand: whether it was stopped or killed since it was started.
        final: whether who stopped it wants it not to be started again this time.
    """

    __slots__ = ("exit_status", "final", "ran_ns", "restart_count", "stopped_by_hand")

    def __init__(
        self,
        exit_status: int,
        ran_ns: int,
        restart_count: int,
        *,
        stopped_by_hand: bool = False,
        final: bool = False,
    ) -> None:
        self.exit_status = exit_status
        self.ran_ns = ran_ns
        self.restart_count = restart_count
        self.stopped_by_hand = stopped_by_hand
        self.final = final


def wanted(policy: "RestartPolicy", end: End) -> bool:
    """Whether a policy wants the container to be started again."""
    name = policy.get("Name") or "no"
    if end.final:
        return False
    if name == "always":
        return True
    if name == "unless-stopped":
        return not end.stopped_by_hand
    if name == "on-failure":
        limit = policy.get("MaximumRetryCount") or 0
        return end.exit_status != 0 and (limit == 0 or end.restart_count < limit)
    return False


def delay_ms(last_ms: int, ran_ns: int) -> int:
    """How long to wait before the next start.

    Args:
        last_ms: how long the last wait was, 0 for none.
        ran_ns: how long the container ran since.
    """
    if last_ms == 0 or ran_ns >= LONG_ENOUGH_NS:
        return FIRST_DELAY_MS
    return min(2 * last_ms, LONGEST_DELAY_MS)
