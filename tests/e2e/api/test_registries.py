"""Pull and push through the server: docker's command line and docker-py, with a real registry."""

import json
import pathlib
import shutil
from collections.abc import Iterator
from dataclasses import replace

import docker  # type: ignore[import-untyped]
import pytest

from tests.support import registry as registries
from tests.support.commands import Engine
from tests.support.registry import PASSWORD, USER

pytestmark = pytest.mark.skipif(
    not shutil.which("docker-registry"), reason="docker-registry is not installed"
)


@pytest.fixture
def host(tmp_path: pathlib.Path) -> Iterator[str]:
    """Return a registry on loopback that wants a password."""
    with registries.docker_registry(tmp_path / "registry", password=True) as found:
        yield found


def test_dockers_command_line(
    host: str, served_engine: Engine, ketch: Engine, tmp_path: pathlib.Path
) -> None:
    # Its credentials are the caller's own, and travel with each request.
    cli = replace(served_engine, environment={**served_engine.environment,
                                              "DOCKER_CONFIG": str(tmp_path)})  # fmt: skip
    name = f"{host}/served"
    ketch.ok("tag", "busybox", name)
    try:
        refused = cli("push", name)
        assert refused.status == 1
        assert "no basic auth credentials" in refused.err
        wrong = cli("login", "-u", USER, "--password-stdin", host, stdin=b"wrong")
        assert wrong.status == 1
        assert "unauthorized" in wrong.err.lower()
        assert "Login Succeeded" in cli.ok(
            "login", "-u", USER, "--password-stdin", host, stdin=PASSWORD.encode()
        )
        pushed = cli.ok("push", name).splitlines()[-1]
        assert pushed.startswith("latest: digest: sha256:")
        digest = pushed.split()[2]
        cli.ok("rmi", name)
        pulled = cli.ok("pull", name)
        assert f"Digest: {digest}" in pulled
        assert f"Status: Downloaded newer image for {name}:latest" in pulled
        assert f"Status: Image is up to date for {name}:latest" in cli.ok("pull", name)
        assert cli.ok("run", "--rm", "--pull", "always", "--quiet", name, "echo", "ran") == "ran"
    finally:
        ketch("rmi", name)


def test_docker_py(host: str, client: docker.DockerClient, ketch: Engine) -> None:
    name = f"{host}/from-python"
    known = {"username": USER, "password": PASSWORD}
    client.images.get("busybox").tag(name)
    try:
        told = [json.loads(line) for line in
                client.images.push(name, auth_config=known).splitlines()]  # fmt: skip
        (digest,) = [line["aux"]["Digest"] for line in told if "aux" in line]
        client.images.remove(name)
        pulled = client.images.pull(name, auth_config=known)
        assert pulled.attrs["RepoDigests"][-1] == f"{name}@{digest}"
        statuses = [line["status"] for line in
                    client.api.pull(name, auth_config=known, stream=True, decode=True)]  # fmt: skip
        assert statuses[-1] == f"Status: Image is up to date for {name}:latest"
        found = client.images.get_registry_data(name, auth_config=known)
        assert found.id == digest
        with pytest.raises(docker.errors.APIError):
            client.images.pull(name, auth_config={**known, "password": "wrong"})
    finally:
        ketch("rmi", "-f", name)
