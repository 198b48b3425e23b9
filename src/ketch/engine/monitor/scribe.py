"""Logging what a program says while nobody is attached to it, for the monitor that sleeps.

Reading, cutting into lines and encoding write to half a megabyte of memory, which a monitor would
keep for ever. So it has that done by a child, the scribe, which ends when the program has been
silent for a while. The monitor only comes back to life when more than logging is to be done: a
client, the end of the program or of one of its streams. Then the scribe gives way to it.
"""

import os
import select
import struct
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from ketch.engine.logs.json_file import Writer
    from ketch.engine.monitor.handover import Channel
    from ketch.engine.monitor.supervision import Streams
    from ketch.linux.memory_image import Image

# Starting anew costs a few milliseconds, which is nothing once in so long a time.
_REST_MS = 10_000
_PAUSE_MS = 1000  # after which its memory is worth a look
_CHUNK_BYTES = 64 * 1024
_COUNTED = (1 << 32) - 1
_HEAD = struct.Struct("!?II")


def serve(
    channel: "Channel",
    streams: "Streams",
    others: "Iterable[int]",
    log: "Writer",
    memory: "Image",
) -> None:
    """Log a program's output until it is silent, or until something else is to be done.

    Args:
        channel: to the monitor, which is told which of the two, and the lines that were begun.
        streams: the program's.
        others: descriptors that are the monitor's affair when there is something to be read.
        log: where the output goes.
        memory: the calling process's, as it was before it was forked.
    """
    rested = True
    awaited = [(descriptor, select.POLLIN) for descriptor in (*streams.outputs, *others)]
    poll = select.poll()
    for descriptor, events in awaited:
        poll.register(descriptor, events)
    while rested and (found := poll.poll(_PAUSE_MS) or memory.wait(awaited, _REST_MS - _PAUSE_MS)):
        rested = all(
            descriptor in streams.outputs and _copy(descriptor, streams.outputs[descriptor][1], log)
            for descriptor, _ in found
        )
    stdout, stderr, lost = log.suspend()
    channel.pass_on(_HEAD.pack(rested, len(stdout), min(lost, _COUNTED)) + stdout + stderr)


def rests(told: bytes) -> bool:
    """Whether a scribe has told that the program is silent; one that was killed tells nothing."""
    return bool(told) and told[0] == 1


def begun(told: bytes) -> tuple[bytes, bytes, int]:
    """Which lines a scribe has told were begun, and how many entries it lost and has not told of.

    Returns:
        The start of a line on standard output, on standard error; the number.
    """
    _, length, lost = _HEAD.unpack_from(told)
    middle = _HEAD.size + int(length)
    return told[_HEAD.size : middle], told[middle:], int(lost)


def _copy(descriptor: int, name: str, log: "Writer") -> bool:
    """Log a piece of output; returns whether the stream goes on."""
    try:
        data = os.read(descriptor, _CHUNK_BYTES)
    except BlockingIOError:
        return True
    except OSError:  # what a terminal says once its other end is closed
        return False
    if data:
        log.write(name, data, time.time_ns())
    return bool(data)
