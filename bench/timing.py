"""Time commands in turns: every round runs each once, in an order that moves on by one."""

import os
import statistics
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


class FailedError(Exception):
    """A command of a benchmark did not succeed; the message has its own words."""


@dataclass
class Case:
    """One command line and the times that it took.

    Attributes:
        engine: column of the table.
        scene: row of the table.
        command: the program, absolute, and its arguments.
        environment: the whole environment it runs in.
    """

    engine: str
    scene: str
    command: list[str]
    environment: Mapping[str, str] = field(repr=False)
    times_ns: list[int] = field(default_factory=list)

    @property
    def median_ms(self) -> float:
        """Median time of a run in milliseconds."""
        return statistics.median(self.times_ns) / 1e6

    @property
    def quartiles_ms(self) -> tuple[float, float]:
        """First and third quartile in milliseconds; of one run, its time."""
        if len(self.times_ns) == 1:
            return self.median_ms, self.median_ms
        first, _, third = statistics.quantiles(self.times_ns, n=4, method="inclusive")
        return first / 1e6, third / 1e6


def run_in_turns(cases: Sequence[Case], *, rounds: int, seconds: float, warm_up: int = 2) -> int:
    """Run every case once a round, so that what disturbs the machine disturbs all alike.

    Args:
        cases: what to run; their times are added to.
        rounds: how many rounds at most.
        seconds: begin no round after this time.
        warm_up: rounds that are not counted, for page cache and helper processes.

    Returns:
        How many rounds were counted.

    Raises:
        FailedError: a command's exit status was not 0.
    """
    started = time.monotonic()
    for number in range(-warm_up, rounds):
        if number > 4 and time.monotonic() - started > seconds:
            return number
        turn = number % len(cases)
        for case in [*cases[turn:], *cases[:turn]]:
            taken_ns = _run(case)
            if number >= 0:
                case.times_ns.append(taken_ns)
    return rounds


def works(case: Case) -> str:
    """Run a case once; return its own words if it fails, else nothing."""
    done = subprocess.run(case.command, env=case.environment, check=False, capture_output=True,
                          text=True, stdin=subprocess.DEVNULL)  # fmt: skip
    return (done.stderr.strip() or f"status {done.returncode}") if done.returncode else ""


def _run(case: Case) -> int:
    """Run one command to its end with nothing on its streams; return nanoseconds."""
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, "/dev/null", os.O_WRONLY, 0),
        (os.POSIX_SPAWN_OPEN, 2, "/dev/null", os.O_WRONLY, 0),
    ]
    begun_ns = time.perf_counter_ns()
    pid = os.posix_spawn(case.command[0], case.command, case.environment, file_actions=actions)
    _, status = os.waitpid(pid, 0)
    taken_ns = time.perf_counter_ns() - begun_ns
    if status:
        code = os.waitstatus_to_exitcode(status)
        raise FailedError(f"status {code} from: {' '.join(case.command)}")
    return taken_ns
