"""What a build says, kept and told as messages."""

import asyncio
from typing import Any

from ketch.api.buildkit import telling
from ketch.api.buildkit.telling import Telling
from ketch.build.graph import Remark
from ketch.build.progress import Log, Status, VertexState, Warned
from ketch.spec.dockerfile.errors import Place


def told(what: Telling) -> list[Any]:
    async def main() -> list[Any]:
        return [one async for one in what.messages()]

    return asyncio.run(main())


def test_all_kinds_of_events_are_told() -> None:
    what = Telling()
    what.tell(VertexState("sha256:1", "[1/1] FROM x", ("sha256:0",)))
    what.tell(VertexState("sha256:1", "[1/1] FROM x", started_ns=1_500_000_000, completed_ns=2,
                          cached=True, error="no"))  # fmt: skip
    what.tell(Status("sha256:1", "pulling", 1, 2, 3, 4_000_000_005))
    what.tell(Log("sha256:1", 1, b"\xffout", 5))
    finding = Remark("Rule", "what", "https://docs.example", "this", Place(2, 3))
    what.tell(Warned("sha256:1", finding, "Dockerfile", b"FROM x\n"))
    what.end()
    [message] = told(what)
    first, last = message.vertexes
    assert (list(first.inputs), first.HasField("started")) == (["sha256:0"], False)
    assert (last.started.seconds, last.started.nanos, last.cached, last.error) == (
        1, 500_000_000, True, "no",
    )  # fmt: skip
    [status], [log], [warning] = message.statuses, message.logs, message.warnings
    assert (status.ID, status.completed.seconds, status.timestamp.nanos) == ("pulling", 4, 5)
    assert (log.msg, log.stream) == (b"\xffout", 1)
    assert (warning.short, list(warning.detail)) == (b"Rule: this (line 2)", [b"what"])
    assert [one.start.line for one in warning.ranges] == [2, 3]
    assert what.steps == {"sha256:1": True}


def test_what_programs_write_is_kept_up_to_a_limit_and_states_are_all() -> None:
    what = Telling()
    what.tell(VertexState("sha256:1", "first"))
    for number in range(40):
        what.tell(Log("sha256:1", 1, b"%d" % number * (telling.LOG_BYTES_MAX // 20), number + 1))
    what.tell(VertexState("sha256:2", "last"))
    what.end()
    messages = told(what)
    logs = [log.msg for message in messages for log in message.logs]
    assert sum(map(len, logs)) <= telling.LOG_BYTES_MAX
    assert logs[-1].startswith(b"39")
    assert [one.name for message in messages for one in message.vertexes] == ["first", "last"]
