"""The attacks on containers, played in sandboxes: by the first program, and by an attendant's."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

import ketch as package
from ketch import Sandbox
from tests.security.hostile import PROGRAMS, program, volumes
from tests.security.test_kernel_interfaces import HARMLESS, REFUSALS
from tests.support.commands import Engine

pytestmark = [pytest.mark.in_process]


@pytest.fixture(scope="module")
def sandbox(root_engine: Engine) -> Iterator[Sandbox]:
    prefix = list(root_engine.prefix)
    root, state = (prefix[prefix.index(name) + 1] for name in ("--root", "--state"))
    binds = [word.split(":") for word in volumes() if ":" in word]
    mounts = {source: target for source, target, _ in binds}
    assert str(PROGRAMS) in mounts
    mounts |= {"/lib": "/lib", "/lib64": "/lib64"}
    with Sandbox.create(
        "busybox", engine=package.Engine(root, state), mounts=mounts, timeout=None
    ) as made:
        yield made


def _attack(sandbox: Sandbox, name: str, *arguments: str, user: str = "") -> Any:
    told = sandbox.run(program(name, *arguments), user=user)
    assert told.status == 0, told
    return json.loads(told.stdout)


@pytest.mark.parametrize("user", ["", "0"])
def test_what_can_be_done_to_the_kernel(sandbox: Sandbox, user: str) -> None:
    """Nothing, by the sandbox's user, nor by its root, who has no capability."""
    for _ in range(2):
        found = _attack(sandbox, "try_everything", user=user)
        assert {name: how for name, how in found.items() if how not in REFUSALS | HARMLESS} == {}
        assert {"mount", "setns", "add_key"} <= set(found)


@pytest.mark.parametrize("user", ["", "0"])
def test_keys_and_roots_and_processes_of_others(sandbox: Sandbox, user: str) -> None:
    for _ in range(2):
        assert _attack(sandbox, "session_keyring", user=user) == {"keyring": -1, "found": False}
        changed = sandbox.run(program("break_chroot"), user=user)
        assert changed.status == 1
        assert b"PermissionError" in changed.stderr
        seen = _attack(sandbox, "look_at_init", "hctek", user=user)
        assert seen["words"] == []
        # The first process is another program's than ketch's, and has nothing of it.
        assert (seen["outcomes"]["mem"] == "opened") == (user == "")


@pytest.mark.parametrize("user", ["", "0"])
def test_descriptors_of_who_comes_in(sandbox: Sandbox, user: str) -> None:
    """Nobody's, however many come: neither an attendant's gate, nor what is in between."""
    with sandbox.start(program("take_descriptors", "/dev/shm/stop"), user=user) as thief:
        assert next(iter(thief)) == ("stderr", b"watching\n")
        for _ in range(20):
            assert sandbox.run(["true"], user=user).status == 0
        sandbox.start(["true"], user=user).wait()
        sandbox.run(["touch", "/dev/shm/stop"])
        stdout, _ = thief.read()
    sandbox.run(["rm", "/dev/shm/stop"])
    assert json.loads(stdout) == []
