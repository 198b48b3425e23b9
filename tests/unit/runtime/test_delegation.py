from typing import Any

import pytest

from ketch.runtime import delegation

MAPS: Any = [
    {"containerID": 0, "hostID": 1000, "size": 1},
    {"containerID": 1, "hostID": 100_000, "size": 65_536},
]


@pytest.mark.parametrize(
    ("number", "maps", "expected"),
    [(0, [], 0), (33, [], 33), (0, MAPS, 1000), (33, MAPS, 100_032), (70_000, MAPS, None)],
)
def test_ids_as_the_host_knows_them(number: int, maps: Any, expected: int | None) -> None:
    assert delegation.host_id(number, maps) == expected


@pytest.mark.parametrize(
    ("mount", "wanted"),
    [
        ({"destination": "/sys/fs/cgroup", "type": "cgroup"}, True),
        ({"destination": "/sys/fs/cgroup/", "type": "cgroup2", "options": ["rw"]}, True),
        ({"destination": "/sys/fs/cgroup", "type": "cgroup", "options": ["nosuid", "ro"]}, False),
        ({"destination": "/cgroup", "type": "cgroup"}, False),
        ({"destination": "/sys/fs/cgroup", "type": "tmpfs"}, False),
    ],
)
def test_when_a_configuration_wants_it(mount: Any, *, wanted: bool) -> None:
    config: Any = {"mounts": [mount]}
    assert delegation.is_wanted(config) == wanted
