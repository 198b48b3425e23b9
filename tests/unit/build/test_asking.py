"""What build's options ask for."""

import contextlib
import io
import os
import pathlib
import stat

import pytest

from ketch.build import asking
from ketch.build.request import (
    Archive,
    Git,
    Http,
    ImageInput,
    LayoutInput,
    LocalDirectory,
    Request,
)
from ketch.errors import InvalidArgumentError, KetchError, NotFoundError
from ketch.spec.build_flags import FLAGS
from ketch.spec.flag import Values

ENVIRONMENT = {"SET": "value", "TOKEN": "t0ken"}


def asked(
    where: str = ".", *, stdin: bytes | None = None, proxies: tuple[str, ...] = (), **given: object
) -> Request:
    values = {flag.name: flag.initial() for flag in FLAGS}
    values |= {name.replace("_", "-"): value for name, value in given.items()}  # type: ignore[misc]
    caller = asking.Caller(ENVIRONMENT, None if stdin is None else io.BytesIO(stdin), proxies)
    with contextlib.ExitStack() as held:
        return asking.request(Values(values), where, caller, held)


@pytest.mark.parametrize(
    ("where", "meant"),
    [
        ("https://host.example/a.git#main:sub", Git("https://host.example/a.git#main:sub")),
        ("git@host.example:a/b", Git("git@host.example:a/b")),
        ("github.com/a/b", Git("github.com/a/b")),
        ("https://host.example/context.tar.gz", Http("https://host.example/context.tar.gz")),
        ("docker-image://busybox:1", ImageInput("busybox:1")),
        ("oci-layout:///x/y:tag", LayoutInput("/x/y", "tag")),
        ("oci-layout:///x/y@sha256:00", LayoutInput("/x/y", "sha256:00")),
        ("/", LocalDirectory("/")),
    ],
)
def test_contexts(where: str, meant: object) -> None:
    assert asked(where).contexts["context"] == meant
    assert asked(build_context=[f"name={where}"]).contexts["name"] == meant


def test_standard_input() -> None:
    assert isinstance(asked("-", stdin=b"FROM scratch").contexts["context"], Archive)
    assert asked(file="-", stdin=b"FROM scratch").dockerfile_text == b"FROM scratch"
    with pytest.raises(InvalidArgumentError, match="both build context and dockerfile"):
        asked("-", stdin=b"", file="-")
    for given in ({"where": "-"}, {"file": "-"}):
        with pytest.raises(InvalidArgumentError, match=r"stdin|standard input"):
            asked(**given)  # type: ignore[arg-type]


def test_a_context_that_is_none(tmp_path: pathlib.Path) -> None:
    (tmp_path / "Dockerfile").touch()
    for name, why in (("missing", "not found"), ("Dockerfile", "is not a directory")):
        with pytest.raises(InvalidArgumentError, match=why):
            asked(str(tmp_path / name))


def test_where_the_dockerfile_is(tmp_path: pathlib.Path) -> None:
    other = tmp_path / "other.Dockerfile"
    with pytest.raises(NotFoundError, match="failed to read dockerfile"):
        asked(file=str(other))
    other.touch()
    found = asked(file=str(other))
    assert found.dockerfile == "other.Dockerfile"
    assert found.dockerfile_input == LocalDirectory(str(tmp_path))
    assert asked("https://host.example/a.git", file="b/c").dockerfile == "b/c"


def test_arguments_and_proxies() -> None:
    found = asked(
        build_arg=["a=1", "SET", "UNSET", "HTTP_PROXY=mine"],
        proxies=("HTTP_PROXY=written", "NO_PROXY=written"),
    )
    assert found.build_args == {
        "a": "1", "SET": "value", "UNSET": None, "HTTP_PROXY": "mine", "NO_PROXY": "written",
    }  # fmt: skip
    with pytest.raises(InvalidArgumentError):
        asked(build_arg=["=x"])


def test_the_callers_time_counts_unasked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENVIRONMENT, "SOURCE_DATE_EPOCH", "7")
    assert asked().build_args == {"SOURCE_DATE_EPOCH": "7"}
    given = asked(build_arg=["SOURCE_DATE_EPOCH=8"])
    assert given.build_args == {"SOURCE_DATE_EPOCH": "8"}


def test_secrets(tmp_path: pathlib.Path) -> None:
    (tmp_path / "s").write_bytes(b"from a file")
    (tmp_path / "large").write_bytes(bytes(500 * 1024 + 1))
    secrets = asked(
        secret=[f"id=a,src={tmp_path}/s", "id=b,env=SET", "id=TOKEN", f"id=l,src={tmp_path}/large",
                "id=none,env=NOBODY"],
    ).secrets  # fmt: skip
    assert secrets is not None
    assert [secrets.get(name) for name in ("a", "b", "TOKEN", "none", "unknown")] == [
        b"from a file", b"value", b"t0ken", None, None,
    ]  # fmt: skip
    with pytest.raises(InvalidArgumentError, match="more than"):
        secrets.get("l")
    with pytest.raises(NotFoundError, match="stat /no/file: no such file"):
        asked(secret=["id=a,src=/no/file"])


def test_agents_that_are_not_there() -> None:
    for text in ("default", "x=/no/socket"):
        with pytest.raises(NotFoundError):
            asked(ssh=[text])


def test_outputs(tmp_path: pathlib.Path) -> None:
    assert asked().outputs == []
    assert asked(load=True).outputs[0].type == "image"
    assert asked(push=True, tag=["a"]).outputs[0].attributes == {"push": "true"}
    assert asked(output=["type=docker"]).outputs[0].type == "image"
    directory = asked(output=[str(tmp_path / "out")]).outputs[0]
    assert (directory.type, directory.directory) == ("local", str(tmp_path / "out"))
    for wrong in (
        {"push": True, "output": ["type=local,dest=x"]}, {"output": ["type=registry"]},
        {"output": ["type=local"]}, {"output": ["type=local,dest=-"]},
        {"output": [f"type=tar,dest={tmp_path}"]}, {"output": ["type=oci,dest=/no/where.tar"]},
    ):  # fmt: skip
        with pytest.raises(InvalidArgumentError):
            asked(**wrong)


def test_a_file_appears_when_all_of_it_is_written(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "out.tar"
    values = {flag.name: flag.initial() for flag in FLAGS} | {"output": [f"type=tar,dest={path}"]}
    caller = asking.Caller({})
    with contextlib.ExitStack() as held:
        found = asking.request(Values(values), "/", caller, held)
        stream = found.outputs[0].stream
        assert stream is not None
        stream.write(b"all of it")
        assert not path.exists()
    assert path.read_bytes() == b"all of it"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644 & ~_umask()
    held = contextlib.ExitStack()
    asking.request(Values({**values, "output": [f"type=tar,dest={path}.2"]}), "/", caller, held)
    error = KetchError("the build failed")
    held.__exit__(KetchError, error, None)
    assert os.listdir(tmp_path) == ["out.tar"]


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_what_network_host_allows() -> None:
    assert list(asked(network="host").entitlements) == ["network.host"]
    assert list(asked().entitlements) == []


def test_tags() -> None:
    assert list(asked(tag=["a", "b:1"]).tags) == ["a:latest", "b:1"]
    with pytest.raises(InvalidArgumentError, match="invalid tag"):
        asked(tag=["A B"])


def test_limits() -> None:
    assert asked(memory=1 << 20, cpu_quota=5).limits == {"Memory": 1 << 20, "CpuQuota": 5}
