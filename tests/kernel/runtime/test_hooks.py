"""Hooks: when, where and with what they run, and what happens when one fails."""

import json
import os
import pathlib
import time
from typing import Any

import pytest

from ketch.errors import UnavailableError
from ketch.runtime import hooks
from tests.kernel.runtime.bundles import Bundle, Config, configuration, in_user_namespace

pytestmark = pytest.mark.root

# Adds a line to the log, which is told by its path: the hook's kind, its mount namespace, its
# root's first entries, and the state that it read.
_SCRIPT = """#!/bin/sh
state=$(cat)
echo "{\\"kind\\": \\"$1\\", \\"mount\\": \\"$(readlink /proc/self/ns/mnt)\\",
 \\"pid_namespace\\": \\"$(readlink /proc/self/ns/pid)\\", \\"directory\\": \\"$(pwd)\\",
 \\"variable\\": \\"$VARIABLE\\", \\"state\\": $state}" | tr -d '\\n' >> "$2"
echo >> "$2"
"""


@pytest.fixture
def script(bundle: Bundle) -> pathlib.Path:
    path = bundle.directory / "hook"
    path.write_text(_SCRIPT)
    path.chmod(0o755)
    inside = bundle.rootfs / "hook"
    inside.write_text(_SCRIPT)
    inside.chmod(0o755)
    return path


def with_hooks(config: Config, script: pathlib.Path, log: pathlib.Path, *kinds: str) -> Config:
    config["hooks"] = {
        kind: [
            {
                "path": "/hook" if kind == "startContainer" else str(script),
                "args": ["hook", kind, "/log" if kind == "startContainer" else str(log)],
                "env": ["VARIABLE=value", "PATH=/bin:/usr/bin"],
            }
        ]
        for kind in kinds
    }
    config["annotations"] = {"org.example": "yes"}
    return config


def lines(log: pathlib.Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def test_kinds_run_in_order_where_they_should(bundle: Bundle, script: pathlib.Path) -> None:
    log = bundle.directory / "log"
    config = with_hooks(
        configuration("cat", "/log"),
        script,
        log,
        "createContainer",
        "startContainer",
        "createRuntime",
        "prestart",
        "poststart",
        "poststop",
    )
    with bundle.container(config, container_id="boxed") as container:
        before = lines(log)
        assert not (bundle.rootfs / "log").exists()
        inside = (container.namespace("mnt"), container.namespace("pid"))
        container.start()
        assert container.wait() == 0
        started = json.loads(container.output())
    outside = (os.readlink("/proc/self/ns/mnt"), os.readlink("/proc/self/ns/pid"))
    assert [entry["kind"] for entry in before] == ["prestart", "createRuntime", "createContainer"]
    seen = [(entry["mount"], entry["pid_namespace"]) for entry in before]
    assert seen == [outside, outside, inside]
    assert {entry["variable"] for entry in before} == {"value"}
    assert before[0]["directory"] == before[1]["directory"] == str(bundle.directory)
    state = {
        "ociVersion": "1.3.0", "id": "boxed", "status": "creating",
        "bundle": str(bundle.directory), "annotations": {"org.example": "yes"},
    }  # fmt: skip
    assert before[0]["state"] == before[1]["state"] == state | {"pid": container.pid}
    assert before[2]["state"] == state | {"pid": 1}
    assert started["kind"] == "startContainer"
    assert (started["mount"], started["pid_namespace"]) == inside
    assert started["state"] == state | {"pid": 1, "status": "created"}


def test_hooks_have_the_environment_of_where_they_run(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who runs in the container's namespaces learns of the container's variables alone."""
    monkeypatch.setenv("OF_THE_CALLER", "secret")
    config = configuration("true")
    config["process"]["env"] = ["PATH=/bin", "INSIDE=yes"]
    kinds = ("prestart", "createRuntime", "createContainer", "startContainer")
    config["hooks"] = {}
    for kind in kinds:
        log = f"{'' if kind == 'startContainer' else bundle.rootfs}/told.{kind}"
        hook = {"path": "/bin/sh", "args": ["sh", "-c", f"{{ export -p; echo --; }} >> {log}"]}
        config["hooks"][kind] = [hook, {**hook, "env": []}, {**hook, "env": ["GIVEN=yes"]}]
    bundle.output(config)
    for kind in kinds:
        told = (bundle.rootfs / f"told.{kind}").read_text().split("--\n")
        found = [
            [name for name in ("OF_THE_CALLER", "INSIDE", "GIVEN") if name in text] for text in told
        ]
        inherited = "OF_THE_CALLER" if kind in {"prestart", "createRuntime"} else "INSIDE"
        assert found == [[inherited], [], ["GIVEN"], []], kind


def test_create_container_hooks_see_both_file_systems(bundle: Bundle, script: pathlib.Path) -> None:
    """What they mount beneath the root is in the container and not on the host."""
    config = configuration("cat", "/injected/file")
    (bundle.directory / "source").mkdir()
    (bundle.directory / "source" / "file").write_text("from a hook\n")
    (bundle.rootfs / "injected").mkdir()
    command = f"mount --bind {bundle.directory}/source {bundle.rootfs}/injected"
    config["hooks"] = {"createContainer": [{"path": "/bin/sh", "args": ["sh", "-c", command]}]}
    assert bundle.output(config) == "from a hook\n"
    assert list((bundle.rootfs / "injected").iterdir()) == []


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer"])
def test_a_failing_hook_ends_the_creation(bundle: Bundle, script: pathlib.Path, kind: str) -> None:
    log = bundle.directory / "log"
    config = with_hooks(configuration("true"), script, log, kind)
    failing = {"path": "/bin/sh", "args": ["sh", "-c", "echo out of order >&2; exit 3"]}
    config["hooks"][kind].insert(0, failing)
    with pytest.raises(UnavailableError, match=rf"hooks.{kind}\[0\].*status 3: out of order"):
        bundle.run(config)
    assert lines(log) == []


def test_a_failing_start_container_hook_ends_the_start(bundle: Bundle) -> None:
    config = configuration("touch", "/started")
    config["hooks"] = {"startContainer": [{"path": "/bin/false"}]}
    with pytest.raises(UnavailableError, match=r"hooks.startContainer\[0\]"):
        bundle.run(config)
    assert not (bundle.rootfs / "started").exists()


def test_a_hook_past_its_timeout_is_killed(bundle: Bundle) -> None:
    config = configuration("true")
    config["hooks"] = {
        "createRuntime": [{"path": "/bin/sleep", "args": ["sleep", "60"], "timeout": 1}]
    }
    began = time.monotonic()
    with pytest.raises(UnavailableError, match="longer than its timeout of 1 s"):
        bundle.run(config)
    assert 1 <= time.monotonic() - began < 10


def test_a_hook_that_is_missing_is_named(bundle: Bundle) -> None:
    config = configuration("true")
    config["hooks"] = {"prestart": [{"path": "/nowhere/hook"}]}
    with pytest.raises(UnavailableError, match=r"/nowhere/hook.*No such file"):
        bundle.run(config)


def test_hooks_inherit_no_descriptors(bundle: Bundle) -> None:
    listing = bundle.directory / "listing"
    command = f"ls -l /proc/self/fd | grep -v /proc/ > {listing}"
    config = configuration("true")
    config["hooks"] = {
        kind: [{"path": "/bin/sh", "args": ["sh", "-c", command]}]
        for kind in ("prestart", "createContainer")
    }
    kept = os.open("/etc/hostname", os.O_RDONLY)
    os.set_inheritable(kept, True)
    try:
        assert bundle.run(config, preserved=kept - 2)[0] == 0
    finally:
        os.close(kept)
    assert "hostname" not in listing.read_text()


def test_poststop_hooks_all_run(bundle: Bundle, script: pathlib.Path) -> None:
    log = bundle.directory / "log"
    config = with_hooks(configuration("true"), script, log, "poststop")
    config["hooks"]["poststop"].insert(0, {"path": "/bin/false"})
    state = hooks.state(config, "boxed", str(bundle.directory), "stopped")  # type: ignore[arg-type]
    failures = hooks.run_all(config, "poststop", state)  # type: ignore[arg-type]
    assert [str(failure) for failure in failures] == [
        "hooks.poststop[0]: /bin/false ended with status 1"
    ]
    (entry,) = lines(log)
    assert entry["state"]["status"] == "stopped"
    assert "pid" not in entry["state"]


def test_hooks_of_a_container_in_a_user_namespace(bundle: Bundle, script: pathlib.Path) -> None:
    log = bundle.directory / "log"
    log.touch()
    log.chmod(0o666)
    config = in_user_namespace(configuration("true"))
    with_hooks(config, script, log, "prestart", "createRuntime", "createContainer")
    assert bundle.run(config)[0] == 0
    assert [entry["kind"] for entry in lines(log)] == [
        "prestart", "createRuntime", "createContainer",
    ]  # fmt: skip
