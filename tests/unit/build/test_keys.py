"""Cache keys: what a step could see changes them, and nothing else does."""

import dataclasses
from typing import Any

import pytest

from ketch.build.cache import keys
from ketch.build.graph import (
    ContextSource,
    Copy,
    CopyItem,
    MakeDirectory,
    Mount,
    MountKind,
    Network,
    Run,
    Scratch,
    Sharing,
)
from ketch.build.request import Request
from ketch.spec.dockerfile.errors import Place

BASE = Scratch(name="base")
CONTEXT = ContextSource(name="context", context="context")
REQUEST = Request(contexts={})
CHAIN = "sha256:" + "1" * 64


def run(**fields: Any) -> Run:
    return Run(**{"name": "RUN", "base": BASE, "arguments": ("/bin/sh", "-c", "x"), **fields})


def run_key(
    step: Run, base: str = CHAIN, request: Request = REQUEST, digests: list[str] | None = None
) -> str:
    found = [""] * len(step.mounts) if digests is None else digests
    return keys.of_run(step, base, found, request)


@pytest.mark.parametrize(
    "fields",
    [
        {"arguments": ("/bin/sh", "-c", "y")},
        {"arguments": ("/bin/sh", "-c x")},
        {"environment": ("A=b",)},
        {"user": "nobody"},
        {"directory": "/w"},
        {"network": Network.NONE},
        {"insecure": True},
        {"devices": (("vendor.example/class=all", True),)},
        {"files": {"EOF": b"x"}},
        {"hostname": "h"},
        {"hosts": ("a:1.2.3.4",)},
        {"platform": "linux/arm64"},
        {"mounts": (Mount(MountKind.TMPFS, "/t"),)},
        {"mounts": (Mount(MountKind.CACHE, "/t", id="a"),)},
        {"mounts": (Mount(MountKind.SECRET, "/t", id="a"),)},
    ],
    ids=str,
)
def test_what_a_program_could_see_changes_its_key(fields: dict[str, Any]) -> None:
    assert run_key(run(**fields)) != run_key(run())


@pytest.mark.parametrize(
    "fields",
    [
        {"name": "RUN something else"},
        {"stage": "other"},
        {"place": Place(3, 4)},
        {"ignore_cache": True},
        {"hidden": ("HTTP_PROXY=http://somebody:password@proxy.example",)},
        {"base": Scratch(name="another object with the same files")},
    ],
    ids=str,
)
def test_what_it_could_not_see_does_not(fields: dict[str, Any]) -> None:
    assert run_key(run(**fields)) == run_key(run())


@pytest.mark.parametrize(
    ("fields", "counts"),
    [
        ({"add_hosts": ["a:1.2.3.4"]}, True),
        ({"shm_size_bytes": 1 << 20}, True),
        ({"ulimits": ["nofile=64"]}, True),
        ({"network": "mine"}, True),
        ({"network": "none"}, True),
        ({"network": ""}, False),
        ({"limits": {"Memory": 1 << 30}}, False),
        ({"cgroup_parent": "/x"}, False),
        ({"tags": ["x"]}, False),
        ({"labels": {"a": "b"}}, False),
        ({"build_args": {"A": "b"}}, False),  # those that it sees are in its environment
        ({"no_cache": True}, False),
        ({"target": "x"}, False),
    ],
    ids=str,
)
def test_what_the_whole_build_is_asked_for(fields: dict[str, Any], counts: bool) -> None:
    request = dataclasses.replace(REQUEST, **fields)
    assert (run_key(run(), request=request) != run_key(run())) is counts


def test_a_network_of_its_own_is_all_that_a_step_sees() -> None:
    step = run(network=Network.NONE)
    other = dataclasses.replace(REQUEST, network="mine")
    assert run_key(step, request=other) == run_key(step)


def test_the_files_below_and_those_bound_count() -> None:
    step = run(mounts=(Mount(MountKind.BIND, "/m", CONTEXT, "/sub"),))
    assert run_key(step, digests=["a"]) != run_key(step, digests=["b"])
    assert run_key(step, "sha256:2", digests=["a"]) != run_key(step, digests=["a"])
    # Where in its source the files are is nothing that the program could see.
    other = run(mounts=(Mount(MountKind.BIND, "/m", CONTEXT, "/elsewhere"),))
    assert run_key(other, digests=["a"]) == run_key(step, digests=["a"])


@pytest.mark.parametrize(
    ("mount", "field", "value"),
    [
        (Mount(MountKind.CACHE, "/c", id="a"), "id", "b"),
        (Mount(MountKind.CACHE, "/c", id="a"), "sharing", Sharing.LOCKED),
        (Mount(MountKind.CACHE, "/c", id="a"), "uid", 5),
        (Mount(MountKind.CACHE, "/c", id="a"), "target", "/d"),
        (Mount(MountKind.TMPFS, "/c"), "size_bytes", 5),
        (Mount(MountKind.SECRET, "/c", id="a"), "variable", "TOKEN"),
        (Mount(MountKind.SECRET, "/c", id="a"), "mode", 0o444),
        (Mount(MountKind.SSH, "/c", id="a"), "id", "b"),
        (Mount(MountKind.BIND, "/c"), "read_only", True),
    ],
    ids=lambda value: str(value)[:60],
)
def test_what_a_mount_is_like(mount: Mount, field: str, value: Any) -> None:
    changed = dataclasses.replace(mount, **{field: value})
    assert run_key(run(mounts=(changed,))) != run_key(run(mounts=(mount,)))


def copy(**fields: Any) -> Copy:
    items = fields.pop("items", (CopyItem(CONTEXT, ("/a",)),))
    return Copy(**{"name": "COPY", "base": BASE, "items": items, "target": "/t", **fields})


@pytest.mark.parametrize(
    "fields",
    [
        {"target": "/t/"},
        {"owner": "1:2"},
        {"mode": "600"},
        {"time_s": 5},
        {"link": True},
        {"items": (CopyItem(CONTEXT, ("/a",), unpack=None),)},
    ],
    ids=str,
)
def test_what_becomes_of_copied_files_counts(fields: dict[str, Any]) -> None:
    assert keys.of_copy(copy(**fields), CHAIN, "a") != keys.of_copy(copy(), CHAIN, "a")


def test_of_copied_files_their_content_counts_and_not_where_they_were() -> None:
    key = keys.of_copy(copy(), CHAIN, "a")
    assert keys.of_copy(copy(), CHAIN, "b") != key
    assert keys.of_copy(copy(), "sha256:2", "a") != key
    assert keys.of_copy(copy(items=(CopyItem(CONTEXT, ("/b",)),)), CHAIN, "a") == key


def test_directories_and_selections() -> None:
    made = MakeDirectory(name="WORKDIR", base=BASE, path="/w")
    other = MakeDirectory(name="WORKDIR", base=BASE, path="/w", owner="1")
    found = {
        keys.of_directory(made, CHAIN),
        keys.of_directory(made, ""),
        keys.of_directory(other, CHAIN),
        keys.of_selection(CHAIN, ["a"]),
        keys.of_selection("", ["a"]),
        keys.of_selection(CHAIN, ["b"]),
    }
    assert len(found) == 6
