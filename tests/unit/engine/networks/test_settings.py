"""What is shown of a container's networks."""

from types import SimpleNamespace
from typing import Any

import pytest

from ketch.engine.networks import settings

ADDRESS = "02:00:00:00:00:01"


def member(name: str, **asked: str) -> Any:
    return SimpleNamespace(network_name=name, network_id=f"id-of-{name}", settings=asked)


@pytest.mark.parametrize(
    ("mode", "shown"),
    [("own", ADDRESS), ("id-of-own", ADDRESS), ("bridge", ""), ("host", ""), ("", "")],
)
def test_the_address_that_is_shown_is_that_of_the_modes_network(mode: str, shown: str) -> None:
    members = [member("other", MacAddress="02:00:00:00:00:02"), member("bridge"),
               member("own", MacAddress=ADDRESS)]  # fmt: skip
    engine: Any = SimpleNamespace(endpoints=SimpleNamespace(of=lambda _: members))
    container: Any = SimpleNamespace(id="x", record={"HostConfig": {"NetworkMode": mode}})
    assert settings.mac_asked(engine, container) == shown
    nothing: Any = SimpleNamespace(id="x", record={})
    assert settings.mac_asked(engine, nothing) == ""
