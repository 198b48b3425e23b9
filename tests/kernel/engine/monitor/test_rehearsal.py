"""What new objects are made of, once the zygote has rehearsed."""

import subprocess
import sys

_SCRIPT = """
from ketch.engine.monitor import rehearsal

loose = [bytes(size % 480) for size in range(40_000)]
del loose[::199]  # a hole here and there
kept = rehearsal.fill()
for size_bytes in (64, 128, 256):
    new = [rehearsal._object(size_bytes) for _ in range(20)]
    places = [id(one) // 16384 for one in new]
    assert len({*places}) <= 2, (size_bytes, places)
"""


def test_new_objects_lie_together() -> None:
    subprocess.run([sys.executable, "-c", _SCRIPT], check=True, timeout=60)
