"""What RUN runs: its words, its mounts, what it may."""

import pytest

from ketch.build.graph import Mount, MountKind, Network, Sharing
from tests.support.planning import PATH, history, names, planned, refused, runs


@pytest.mark.parametrize(
    ("text", "words", "files", "shown"),
    [
        ("RUN a b", ["/bin/sh", "-c", "a b"], {}, "RUN a b"),
        ('RUN ["a", "b c"]', ["a", "b c"], {}, 'RUN ["a", "b c"]'),
        ("RUN <<E\na\nb\nE", ["/bin/sh", "-c", "a\nb\n"], {}, "RUN <<E (a...)"),
        ("RUN <<-E\n\ta\nE", ["/bin/sh", "-c", "a\n"], {}, "RUN <<-E (a)"),
        (
            "RUN <<E\n#!/usr/bin/env python3\nprint(1)\nE",
            ["/bin/sh", "-c", "/dev/pipes/E"],
            {"E": b"#!/usr/bin/env python3\nprint(1)\n"},
            "RUN <<E (#!/usr/bin/env python3...)",
        ),
        (
            "RUN cat <<A <<B\n1\nA\n2\nB",
            ["/bin/sh", "-c", "cat <<A <<B\n1\nA\n2\nB"],
            {},
            "RUN cat <<A <<B",
        ),
    ],
)
def test_words(text: str, words: list[str], files: dict[str, bytes], shown: str) -> None:
    found = planned(f"FROM scratch\n{text}\n")
    (step,) = runs(found)
    assert [*step.arguments] == words
    assert step.files == files
    assert names(found)[-1] == f"[1/1] {shown}"
    assert history(found) == [f"RUN {' '.join(words)} # buildkit"]


def test_mounts() -> None:
    found = planned(
        """
        FROM a AS other
        FROM scratch
        WORKDIR /w
        ARG ID=c PLACE=/p
        RUN --mount=target=t,source=sub --mount=from=other,target=/o,rw \\
            --mount=type=cache,target=$PLACE \\
            --mount=type=cache,target=/c,id=$ID,sharing=locked,uid=1 \\
            --mount=type=cache,target=/d,from=other,source=/x/../y,mode=0700,ro \\
            --mount=type=tmpfs,target=/t,size=1m --mount=type=secret,id=s \\
            --mount=type=secret,src=s,target=/run/x,mode=0440,required \\
            --mount=type=secret,id=s,env=TOKEN --mount=type=ssh --mount=type=ssh,id=i,target=/a x
        """
    )
    (step,) = runs(found)
    other = step.mounts[1].source
    assert other is not None
    assert other.name.startswith("[other 1/1]")
    context = step.mounts[0].source
    assert context is not None
    assert context.name == "[internal] load build context"
    assert [*step.mounts] == [
        Mount(MountKind.BIND, "/w/t", context, "/sub", read_only=True),
        Mount(MountKind.BIND, "/o", other),
        Mount(MountKind.CACHE, "/p", id="/p"),
        Mount(MountKind.CACHE, "/c", id="c", sharing=Sharing.LOCKED, uid=1),
        Mount(MountKind.CACHE, "/d", other, "/y", id="/d", read_only=True),
        Mount(MountKind.TMPFS, "/t", size_bytes=1 << 20),
        Mount(MountKind.SECRET, "/run/secrets/s", id="s", read_only=True),
        Mount(MountKind.SECRET, "/run/x", id="s", read_only=True, mode=0o440, required=True),
        Mount(MountKind.SECRET, "", id="s", read_only=True, variable="TOKEN"),
        Mount(MountKind.SSH, "/run/buildkit/ssh_agent.0", id="default"),
        Mount(MountKind.SSH, "/a", id="i"),
    ]
    assert "SSH_AUTH_SOCK=/run/buildkit/ssh_agent.0" in step.environment


def test_a_secret_in_a_variable_shows_as_one() -> None:
    found = planned("FROM scratch\nRUN --mount=type=secret,id=s,env=S login $S\n")
    assert names(found)[-1].endswith("login ****")
    assert history(found) == ["RUN /bin/sh -c login $S # buildkit"]


def test_cache_mounts_in_a_space_of_their_own() -> None:
    arguments = {"BUILDKIT_CACHE_MOUNT_NS": "mine"}
    text = "FROM scratch\nRUN --mount=type=cache,target=/c x\n"
    (step,) = runs(planned(text, build_args=arguments))
    assert [mount.id for mount in step.mounts] == ["mine//c"]


def test_proxies_are_given_and_not_told() -> None:
    arguments = {"http_proxy": "http://u:p@proxy.example", "No_Proxy": "a", "FTP_PROXY": ""}
    found = planned("FROM scratch\nRUN x\n", build_args=arguments)
    (step,) = runs(found)
    assert step.environment == (PATH,)
    assert step.hidden == (
        "NO_PROXY=a", "no_proxy=a",
        "HTTP_PROXY=http://u:p@proxy.example", "http_proxy=http://u:p@proxy.example",
    )  # fmt: skip
    assert "proxy" not in " ".join([*names(found), *history(found)])


def test_surroundings_of_the_request() -> None:
    (step,) = runs(
        planned(
            "FROM scratch\nRUN x\n",
            build_args={"BUILDKIT_SANDBOX_HOSTNAME": "h"}, add_hosts=["a:127.0.0.2"],
        )
    )  # fmt: skip
    assert (step.hostname, step.hosts) == ("h", ("a:127.0.0.2",))


@pytest.mark.parametrize(
    ("flag", "requested", "entitlements", "expected"),
    [
        ("", "default", [], Network.DEFAULT),
        ("", "mine", [], Network.DEFAULT),
        ("", "none", [], Network.NONE),
        ("", "host", [], Network.HOST),
        ("--network=default", "none", [], Network.NONE),
        ("--network=none", "host", [], Network.NONE),
        ("--network=host", "default", ["network.host"], Network.HOST),
    ],
)
def test_networks(flag: str, requested: str, entitlements: list[str], expected: Network) -> None:
    text = f"FROM scratch\nRUN {flag} x\n"
    (step,) = runs(planned(text, network=requested, entitlements=entitlements))
    assert step.network == expected


@pytest.mark.parametrize(
    ("flag", "refusal", "entitlement"),
    [
        ("--network=host", "network.host is not allowed", "network.host"),
        ("--security=insecure", "security.insecure is not allowed", "security.insecure"),
        ("--device=v.example/c=n", "device v.example/c=n is requested by the build but not allowed",
         "device=v.example/c=n"),
        ("--device=v.example/c=n", "device v.example/c=n is requested by the build but not allowed",
         "device"),
    ],
)  # fmt: skip
def test_what_has_to_be_allowed(flag: str, refusal: str, entitlement: str) -> None:
    text = f"FROM scratch\nRUN {flag} x\n"
    error = refused(text)
    assert error.message == f"failed to load LLB: {refusal}"
    assert [place.first for place in error.places] == [2]
    (step,) = runs(planned(text, entitlements=[entitlement]))
    assert step.insecure == (entitlement == "security.insecure")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("RUN --mount=target=/ x", 'invalid mount target "/"'),
        ("RUN --mount=target=a/.. x", 'invalid mount target "/"'),
        ("RUN --mount=type=ssh,source=a x", "ssh does not support source"),
        ("RUN --mount=type=nothing,target=/a x", 'unsupported mount type "nothing"'),
        ("RUN <<a/b\n#!/bin/sh\na/b", 'invalid name of a heredoc: "a/b"'),
    ],
)
def test_what_cannot_be_run(text: str, message: str) -> None:
    assert refused(f"FROM scratch\n{text}\n").message == message
