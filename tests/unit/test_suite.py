"""What the suite is to its tests: the same, however it was started."""

import subprocess
import sys

from tests.support.images import CHECKOUT

_TELL = """
import signal
from tests import conftest
conftest.heed_signals()
print([signal.getsignal(n).__name__ for n in (signal.SIGINT,)])
print(open("/proc/self/status").read().partition("SigIgn:")[2].split()[0])
"""


def test_signals_are_heeded_that_a_shell_had_ignored() -> None:
    """As in ``nohup make test &``; what the tests start would ignore them as well."""
    told = subprocess.run(
        ["sh", "-c", "trap '' HUP INT QUIT; exec \"$0\" -c \"$1\"", sys.executable, _TELL],
        cwd=CHECKOUT, check=True, capture_output=True, text=True,
    ).stdout.split()  # fmt: skip
    assert told[0] == "['default_int_handler']"
    assert int(told[1], 16) & 0b111 == 0
