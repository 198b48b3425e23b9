"""What type checkers read of the library is what there is; mypy itself checks the second half."""

import importlib.util
import pathlib
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Any, assert_type

import pytest

import ketch
import ketch.aio
from ketch.errors import InvalidArgumentError
from ketch.library import keywords
from ketch.library.options import KNOWN, make_request

SCRIPT = pathlib.Path(__file__).parents[3] / "scripts" / "library_types.py"


def test_they_are_made_from_the_table_and_the_classes() -> None:
    specification = importlib.util.spec_from_file_location("library_types", SCRIPT)
    assert specification is not None
    assert specification.loader is not None
    script = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(script)
    assert script.KEYWORDS.read_text() == script.keywords(), "run scripts/library_types.py"
    assert script.AWAITED.read_text() == script.awaited(), "run scripts/library_types.py"


def test_every_keyword_that_is_typed_is_taken_and_no_other() -> None:
    typed = keywords.RunOptions.__annotations__
    for keyword in typed:
        make_request("image", None, {keyword: None})
    assert {option.name.replace("-", "_") for option in KNOWN} <= set(typed)
    with pytest.raises(InvalidArgumentError, match="there is no option colour"):
        make_request("image", None, {"colour": None})


def test_the_request_holds_what_the_keywords_say() -> None:
    request, name = make_request(
        "image", ["echo", "hi"],
        {"name": "one", "memory": "64m", "cpus": 0.5, "env": {"A": "b"}, "tty": True,
         "publish": {"127.0.0.1:8080": 80}, "cap_add": ["NET_ADMIN"], "pids_limit": 9},
    )  # fmt: skip
    config, host = request["Config"], request["HostConfig"]
    assert (name, config["Image"], config["Cmd"]) == ("one", "image", ["echo", "hi"])
    assert (config["Env"], config["Tty"]) == (["A=b"], True)
    assert (host["Memory"], host["NanoCpus"], host["PidsLimit"]) == (64 << 20, 500_000_000, 9)
    assert host["CapAdd"] == ["NET_ADMIN"]
    assert host["PortBindings"] == {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}]}


if TYPE_CHECKING:
    # Never run: mypy fails where a type is another, or where an error that it is to find is none.

    def _plain(engine: ketch.Engine) -> None:
        assert_type(engine.containers.run("busybox", ["true"], memory="64m", rm=True), bytes)
        container = engine.containers.run("busybox", detach=True, volume=["/a:/b"], cpus=0.5)
        assert_type(container.exec_run(["true"]).exit_status, int)
        assert_type(container.follow_logs(), Iterator[tuple[str, bytes]])
        assert_type(container.commit("name:1").tags, list[str])
        with container as entered:
            assert_type(entered.name, str)
        container.update(memory="128m", restart="always")
        engine.containers.run("busybox", memry="64m")  # type: ignore[call-overload]
        engine.containers.create("busybox", tty="yes")  # type: ignore[arg-type]
        container.update(volume=["/a:/b"])  # type: ignore[call-arg]

    async def _awaited(engine: ketch.aio.Engine) -> None:
        assert_type(await engine.containers.run("busybox", ["true"]), bytes)
        container = await engine.containers.run("busybox", detach=True)
        assert_type(container, ketch.aio.Container)
        assert_type(container.follow_logs(), AsyncIterator[tuple[str, bytes]])
        assert_type(await container.wait(), int)
        assert_type(await engine.containers.list(all=True), list[ketch.aio.Container])
        assert_type(await engine.images.get("busybox"), ketch.aio.Image)
        assert_type(await engine.info(), dict[str, Any])
        async with container as entered:
            assert_type(entered.name, str)
        await engine.containers.run("busybox", memry="64m")  # type: ignore[call-overload]
        await container.stop(timeout="1")  # type: ignore[arg-type]
