"""What build's options with several fields mean."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.errors import InvalidArgumentError
from ketch.spec import build_options
from ketch.spec.build_options import AgentSource, Fields, SecretSource


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("out", Fields("local", {"dest": "out"})),
        ("-", Fields("tar", {"dest": "-"})),
        ("type=oci,dest=a.tar", Fields("oci", {"dest": "a.tar"})),
        ('type=image,"name=a,b",push=true', Fields("image", {"name": "a,b", "push": "true"})),
        ("type=tar, DEST=x", Fields("tar", {"dest": "x"})),
    ],
)
def test_outputs(text: str, meant: Fields) -> None:
    assert build_options.output(text) == meant


@pytest.mark.parametrize("text", ["dest=x,a=b", "type=", "type=zip", "type=oci,x", 'type=oci,"a'])
def test_outputs_that_are_none(text: str) -> None:
    with pytest.raises(InvalidArgumentError):
        build_options.output(text)


def test_caches() -> None:
    assert build_options.cache("user/app:cache", exports=False) == Fields(
        "registry", {"ref": "user/app:cache"}
    )
    assert build_options.cache("type=local,dest=d,mode=max", exports=True) == Fields(
        "local", {"dest": "d", "mode": "max"}
    )
    assert build_options.cache("type=inline", exports=True) == Fields("inline", {})
    for text in ("type=local", "type=gha", "ref=x", "a,b", "type=inline", "type=registry"):
        with pytest.raises(InvalidArgumentError):
            build_options.cache(text, exports=False)


def test_secrets_and_agents() -> None:
    assert build_options.secret("id=a,src=/x") == SecretSource("a", "/x", "")
    assert build_options.secret("id=a,env=B") == SecretSource("a", "", "B")
    assert build_options.secret("type=env,id=a") == SecretSource("a", "", "a")
    assert build_options.secret("id=a") == SecretSource("a")
    for text in ("src=/x", "id=a,what=b", "id", "id=a,type=magic"):
        with pytest.raises(InvalidArgumentError):
            build_options.secret(text)
    assert build_options.agent("default") == AgentSource("default")
    assert build_options.agent("k=/a,/b") == AgentSource("k", ("/a", "/b"))
    with pytest.raises(InvalidArgumentError):
        build_options.agent("=x")


def test_attestations() -> None:
    assert build_options.attestations((), "", "") == ("", "")
    assert build_options.attestations((), "true", "") == ("min", "")
    assert build_options.attestations((), "mode=max", "") == ("max", "")
    assert build_options.attestations(["type=provenance,mode=max"], "false", "") == ("", "")
    assert build_options.attestations(["type=sbom,generator=scan"], "", "") == ("", "scan")
    for wrong in (((), "mode=most", ""), ((), "", "true"), (["type=x"], "", "")):
        with pytest.raises(InvalidArgumentError):
            build_options.attestations(*wrong)


def test_annotations() -> None:
    found = build_options.annotations(["a=b", "index,manifest[linux/arm64]:c=d=e"])
    assert found == {"manifest:a": "b", "index:c": "d=e", "manifest[linux/arm64]:c": "d=e"}
    for text in ("a", "layer:a=b", "manifest[:a=b"):
        with pytest.raises(InvalidArgumentError):
            build_options.annotations([text])


@given(st.text(max_size=80))
def test_nothing_else_is_ever_raised(text: str) -> None:
    for read in (
        build_options.output, build_options.secret, build_options.agent,
        build_options.build_context, lambda given: build_options.cache(given, exports=True),
        lambda given: build_options.annotations([given]),
        lambda given: build_options.attestations([given], given, given),
    ):  # fmt: skip
        with contextlib.suppress(InvalidArgumentError):
            read(text)
