"""docker-compose 1.29 brings a project of three services up, scales it, and takes it down."""

import json
import pathlib
import shutil
from collections.abc import Iterator

import pytest

from tests.support.commands import Engine

PROJECT = """
version: "2.4"
services:
  store:
    image: busybox
    command: sh -c "echo kept > /data/index.html; exec httpd -f -h /data"
    volumes: ["data:/data"]
    networks: [inside]
    healthcheck:
      test: ["CMD", "wget", "-q", "-O", "/dev/null", "http://127.0.0.1/"]
      interval: 1s
      retries: 20
  front:
    image: busybox
    command: sh -c "wget -q -O /dev/null http://store/ && echo reached && exec sleep 100"
    depends_on:
      store: {condition: service_healthy}
    networks: [inside, outside]
    ports: ["127.0.0.1::80"]
    environment: {A: b}
  worker:
    image: busybox
    command: sh -c "echo working; exec sleep 100"
    networks: [inside]
    stop_grace_period: 0s
networks: {inside: {}, outside: {}}
volumes: {data: {}}
"""


@pytest.fixture
def compose(socket: pathlib.Path, ketch: Engine, tmp_path: pathlib.Path) -> Iterator[Engine]:
    program = shutil.which("docker-compose")
    if program is None:
        pytest.skip("docker-compose is not installed")
    file = tmp_path / "docker-compose.yml"
    file.write_text(PROJECT, encoding="utf-8")
    engine = Engine("compose", [program, "-f", str(file), "-p", "apiproject"],
                    {"DOCKER_HOST": f"unix://{socket}"})  # fmt: skip
    yield engine
    engine("down", "-v", "-t", "0")


def test_a_project_of_three_services(compose: Engine, ketch: Engine) -> None:
    result = compose("up", "-d", "--scale", "worker=2", timeout=100)
    assert result.status == 0, str(result)
    names = ketch.ok("ps", "--filter", "label=com.docker.compose.project=apiproject", "--format",
                     "{{.Names}}").split()  # fmt: skip
    assert sorted(name.replace("-", "_") for name in names) == [
        "apiproject_front_1", "apiproject_store_1", "apiproject_worker_1", "apiproject_worker_2",
    ]  # fmt: skip
    (store,) = [name for name in names if "store" in name]
    state = json.loads(ketch.ok("inspect", "-f", "{{json .State}}", store))
    assert state["Health"]["Status"] == "healthy"
    assert "reached" in compose.ok("logs", "front")
    assert compose.ok("exec", "-T", "front", "wget", "-qO-", "http://store/") == "kept"
    assert compose.ok("port", "front", "80").startswith("127.0.0.1:")
    assert compose("up", "-d", "--scale", "worker=1", timeout=60).status == 0
    assert len(compose.ok("ps", "-q", "worker").split()) == 1
    down = compose("down", "-v", "-t", "0", timeout=60)
    assert down.status == 0, str(down)
    assert "apiproject" not in ketch.ok("ps", "-a")
    assert "apiproject" not in ketch.ok("network", "ls")
    assert "apiproject" not in ketch.ok("volume", "ls")
