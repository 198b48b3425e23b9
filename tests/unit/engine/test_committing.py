"""What an image made of a container takes from what was asked for, and what from the container."""

from typing import Any

from ketch.engine.files import committing


def merged(config: dict[str, Any], below: dict[str, Any]) -> dict[str, Any]:
    committing._merge(config, below)  # type: ignore[arg-type] # as far as it goes
    return config


def test_what_was_asked_for_goes_before_the_containers_own() -> None:
    found = merged(
        {"Env": ["A=asked"], "Labels": {"a": "asked"}, "User": "me"},
        {"Env": ["A=own", "B=own"], "Labels": {"a": "own", "b": "own"}, "User": "you",
         "WorkingDir": "/own", "ExposedPorts": {"80/tcp": {}}},
    )  # fmt: skip
    assert found == {
        "Env": ["A=asked", "B=own"],
        "Labels": {"a": "asked", "b": "own"},
        "User": "me",
        "WorkingDir": "/own",
        "ExposedPorts": {"80/tcp": {}},
    }


def test_a_command_belongs_to_its_entrypoint() -> None:
    own = {"Entrypoint": ["/own"], "Cmd": ["own"]}
    assert merged({}, own) == own
    assert merged({"Cmd": ["asked"]}, own) == {"Entrypoint": ["/own"], "Cmd": ["asked"]}
    assert merged({"Entrypoint": ["/asked"]}, own) == {"Entrypoint": ["/asked"]}
