import pytest

from ketch.errors import InvalidArgumentError
from ketch.spec import devices


@pytest.mark.parametrize(
    ("text", "mapping"),
    [
        ("/dev/full", ("/dev/full", "/dev/full", "rwm")),
        ("/dev/full:r", ("/dev/full", "/dev/full", "r")),
        ("/dev/full:/dev/x", ("/dev/full", "/dev/x", "rwm")),
        ("/dev/full:/dev/x:rm", ("/dev/full", "/dev/x", "rm")),
    ],
)
def test_devices(text: str, mapping: tuple[str, str, str]) -> None:
    assert tuple(devices.device(text).values()) == mapping


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "bad format for path: "),
        ("a:b:c:d", "bad format for path: a:b:c:d"),
        ("foo", "foo is not an absolute path"),
        ("/dev/null:foo", "foo is not an absolute path"),
        ("/dev/null:rr", "rr is not an absolute path"),
        ("/dev/null:/foo:x", "bad mode specified: x"),
    ],
)
def test_malformed_devices(text: str, message: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        devices.device(text)
    assert caught.value.message == message


def test_cgroup_rules() -> None:
    assert devices.cgroup_rule("c 7:* rm") == {
        "allow": True,
        "type": "c",
        "major": 7,
        "minor": -1,
        "access": "rm",
    }


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "c 1:2",
        "d 1:2 r",
        "c 1 r",
        "c 1:2 x",
        "c 1:2 rwmr",
        "c  1:2 r",
        "c -1:2 r",
        f"c {'9' * 5000}:1 r",
        "c 1:² r",
    ],
)
def test_malformed_cgroup_rules(text: str) -> None:
    with pytest.raises(InvalidArgumentError, match="invalid device cgroup format"):
        devices.cgroup_rule(text)
