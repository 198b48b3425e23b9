"""Which ids an ordinary user's namespace has, by the machine's two files."""

from collections.abc import Callable

import pytest

from ketch.engine.home import ids

Files = Callable[..., None]


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> Files:
    """Return what lays down the content of /etc/subuid and /etc/subgid."""
    monkeypatch.setattr(
        "ketch.engine.home.places.name_of", lambda user: {1000: "ann"}.get(user, str(user))
    )

    def lay(subuid: str, subgid: str | None = None) -> None:
        content = {"/etc/subuid": subuid, "/etc/subgid": subuid if subgid is None else subgid}
        monkeypatch.setattr(ids, "_read", content.__getitem__)

    return lay


def spans(found: ids.Ids) -> list[list[tuple[int, int, int]]]:
    return [
        [(one["containerID"], one["hostID"], one["size"]) for one in each]
        for each in (found.users, found.groups)
    ]


def test_a_user_is_known_by_its_name_and_by_its_number(files: Files) -> None:
    files("ann:100000:10\n1000:200000:5\nbob:300000:9\n", "1000:400000:7\n")
    own = ids.of(1000, 50)
    assert spans(own) == [[(0, 1000, 1), (1, 100000, 10), (11, 200000, 5)],
                          [(0, 50, 1), (1, 400000, 7)]]  # fmt: skip
    assert not own.is_alone
    assert spans(own.alone()) == [[(0, 1000, 1)], [(0, 50, 1)]]
    assert spans(ids.of(1001, 60)) == [[(0, 1001, 1)], [(0, 60, 1)]]


@pytest.mark.parametrize(
    ("subuid", "subgid"), [("ann:100000:10\n", ""), ("", "ann:100000:10\n"), ("", "")]
)
def test_users_alone_or_groups_alone_are_none(files: Files, subuid: str, subgid: str) -> None:
    files(subuid, subgid)
    found = ids.of(1000, 1000)
    assert found.is_alone
    assert spans(found) == [[(0, 1000, 1)]] * 2


def test_what_nobody_has_comes_after_all_that_somebody_has(files: Files) -> None:
    files("")
    assert ids.unclaimed() == "100000-165535"
    files("bob:50:10\n")
    assert ids.unclaimed() == "100000-165535"
    files("bob:100000:65536\n", "bob:200000:5\neve:not:a range\n")
    assert ids.unclaimed() == "200005-265540"


def test_what_is_wrong_is_told_with_its_file(files: Files) -> None:
    files("ann:x:5\nbob:y:5\n", "ann:100000:10\n")
    assert ids.faults(1000, 1000) == ["/etc/subuid: line 1 is no NAME:FIRST:COUNT of 32 bits"]
    files("", "ann:45:10\n")
    (fault,) = ids.faults(1000, 50)
    assert fault.startswith("/etc/subgid: line 1 has the user's own id 50")
    assert ids.faults(1001, 50) == []


def test_a_file_that_cannot_be_read_says_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: object
) -> None:
    monkeypatch.setattr(ids, "_SUBUID", f"{tmp_path}/none")
    monkeypatch.setattr(ids, "_SUBGID", f"{tmp_path}")
    assert ids.of(1001, 7).is_alone
    assert ids.unclaimed() == "100000-165535"
