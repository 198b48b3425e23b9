"""Changes of a container's record while somebody else changes it."""

import json
from pathlib import Path

import pytest

from ketch.engine.containers import renaming, updating
from ketch.engine.engine import Engine
from ketch.engine.settings import Settings
from ketch.errors import NotFoundError

ID = "c" * 64


@pytest.fixture
def engine(tmp_path: Path) -> Engine:
    """Return an engine with a stopped container, linked to another."""
    engine = Engine(Settings(str(tmp_path / "root"), str(tmp_path / "state")))
    record = {"Config": {}, "HostConfig": {"Links": ["db:db"], "Memory": 0}}
    with engine.store.transaction() as connection:
        connection.execute(
            "INSERT INTO container (id, name, image_id, image_reference, created_ns, record, state)"
            " VALUES (?, 'web', '', '', 1, ?, 'exited')",
            (ID, json.dumps(record)),
        )
    return engine


def test_an_update_keeps_what_others_change_meanwhile(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def meanwhile(*_: object) -> None:
        record = {"Config": {}, "HostConfig": {"Links": [], "Memory": 0}}
        engine.containers.note(ID, columns={"record": json.dumps(record)})

    monkeypatch.setattr("ketch.engine.configuration.admission.check", meanwhile)
    updating.update(engine, "web", {"RestartPolicy": {"Name": "always", "MaximumRetryCount": 0}})
    host = engine.containers.find("web").record["HostConfig"]
    assert host["RestartPolicy"]["Name"] == "always"
    assert host["Links"] == []


def test_a_container_that_goes_while_it_is_renamed_is_not_found(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def meanwhile(name: str) -> str:
        with engine.store.transaction() as connection:
            connection.execute("DELETE FROM container")
        return name

    monkeypatch.setattr("ketch.engine.records.names.check_name", meanwhile)
    with pytest.raises(NotFoundError, match="No such container: web"):
        renaming.rename(engine.store, engine.containers, "web", "new")
