from types import SimpleNamespace
from typing import Any

from ketch.engine.configuration import sharing


def container(name: str, **modes: str) -> Any:
    host = {key: f"container:{reference}" for key, reference in modes.items()}
    return SimpleNamespace(id=name * 16, name=name, record={"HostConfig": host})


def test_donors_are_started_before_those_who_join_them() -> None:
    found = [
        container("aaaa", NetworkMode="cccc", PidMode="dddd"),
        container("bbbb"),
        container("cccc", IpcMode="dddddddd"),
        container("dddd"),
    ]
    assert [each.name for each in sharing.in_order(found)] == ["dddd", "cccc", "aaaa", "bbbb"]


def test_those_who_want_each_other_are_started_all_the_same() -> None:
    found = [container("aaaa", PidMode="bbbb"), container("bbbb", NetworkMode="aaaa")]
    assert {each.name for each in sharing.in_order(found)} == {"aaaa", "bbbb"}


def test_what_is_not_there_is_nobodys_concern_yet() -> None:
    (alone,) = sharing.in_order([container("aaaa", NetworkMode="gone")])
    assert sharing.donors(alone.record) == ["gone"]
