"""testcontainers-python starts a Redis and a PostgreSQL of Debian's packages, and uses them."""

import pathlib
import shutil
import socket as sockets

import pytest

from tests.support import images
from tests.support.commands import Engine
from tests.support.users import UsersEngine

pytestmark = pytest.mark.timeout(300)

# Without what neither server needs to answer; the just-in-time compiler is most of it.
INSTALL = (
    "apt-get update -qq && apt-get install -qq -y --no-install-recommends redis-server postgresql"
    " && rm -rf /var/lib/apt/lists /var/cache/apt /usr/share/doc /usr/share/locale"
    " /usr/lib/*-linux-gnu/libLLVM*"
)
# What the image from Docker's registry has as its entry point.
POSTGRES = (
    'set -e; cd /tmp; export PATH="$(echo /usr/lib/postgresql/*/bin):$PATH" PGDATA=/tmp/data;'
    ' echo "$POSTGRES_PASSWORD" > word; initdb -A scram-sha-256 -U "$POSTGRES_USER" --pwfile word'
    " -N; pg_ctl -w -o '-c jit=off -k /tmp' start;"
    ' PGPASSWORD="$POSTGRES_PASSWORD" createdb -h /tmp -U "$POSTGRES_USER" "$POSTGRES_DB";'
    " pg_ctl -w stop; exec postgres -c jit=off -k /tmp -c listen_addresses='*'"
)


@pytest.fixture
def services(
    ketch: Engine, socket: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> str:
    """Return the name of an image with both servers, and let testcontainers find ketch's."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{socket}")
    # The image of its reaper is in a registry that tests do not ask.
    monkeypatch.setenv("TESTCONTAINERS_RYUK_DISABLED", "true")
    archive = images.CACHE / "services.tar"
    if not archive.exists():
        if not images.packages_reachable():
            pytest.skip("Debian's packages are out of reach")
        if "debian" not in ketch.ok("images"):
            ketch.ok("import", str(images.debian_archive()), "debian", timeout=120)
        try:
            ketch.ok("run", "--name", "services", "debian", "sh", "-c", INSTALL, timeout=200)
            exported = tmp_path / archive.name  # the cache is not every user's to write to
            ketch.ok("export", "-o", str(exported), "services", timeout=60)
            partial = archive.with_suffix(".partial")
            shutil.copyfile(exported, partial)
            partial.rename(archive)
        finally:
            ketch("rm", "-f", "services")
    if "services" not in ketch.ok("images"):
        ketch.ok("import", str(archive), "services", timeout=60)
    return "services"


def test_redis_and_postgres(services: str, ketch: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    core = pytest.importorskip("testcontainers.core.container")
    if isinstance(ketch, UsersEngine):
        # On a machine that is a container (/.dockerenv) it asks at the bridge's gateway, which is
        # in a user's own network; docs/rootless.md has the variables for these.
        known = pytest.importorskip("testcontainers.core.config").testcontainers_config
        modes = pytest.importorskip("testcontainers.core.config").ConnectionMode
        monkeypatch.setattr(known, "connection_mode_override", modes.docker_host)
        monkeypatch.setattr(known, "tc_host_override", "localhost")
    postgres = pytest.importorskip("testcontainers.community.postgres")
    waiting = pytest.importorskip("testcontainers.core.wait_strategies")
    redis = (
        core.DockerContainer(services)
        .with_command("redis-server --bind 0.0.0.0 --protected-mode no --save ''")
        .with_exposed_ports(6379)
        .waiting_for(waiting.LogMessageWaitStrategy("Ready to accept connections"))
    )
    database = postgres.PostgresContainer(services, username="kim", password="it's", dbname="shop")
    database.with_command(["bash", "-c", POSTGRES]).with_kwargs(user="postgres")
    with redis, database:
        place = redis.get_container_host_ip(), int(redis.get_exposed_port(6379))
        with sockets.create_connection(place, timeout=10) as connection:
            connection.sendall(b"SET a kept\r\nGET a\r\n")
            answer = connection.recv(100)
            while not answer.endswith(b"kept\r\n"):
                answer += connection.recv(100)
            assert answer == b"+OK\r\n$4\r\nkept\r\n"
        assert f":{database.get_exposed_port(5432)}/shop" in database.get_connection_url()
        status, output = database.exec(
            ["psql", "postgresql://kim:it's@127.0.0.1/shop", "-Atc", "select 6 * 7"]
        )
        assert (status, output) == (0, b"42\n")
        assert len(ketch.ok("ps", "-q").split()) == 2
    assert ketch.ok("ps", "-aq") == ""
