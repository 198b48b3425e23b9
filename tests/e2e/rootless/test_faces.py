"""The engine's other faces as an ordinary user: unshare, the API, units, the library."""

import pathlib
import shutil
import subprocess

import pytest

from tests.support.users import User

_USE = """
import os, ketch
engine = ketch.Engine()
assert engine.containers.run("busybox", ["id", "-u"], rm=True) == b"0\\n"
assert os.getcwd() == os.environ["PWD"], os.getcwd()
engine.networks.create("library")
server = engine.containers.run(
    "busybox", ["sleep", "1000"], name="server", network="library", detach=True
)
told = engine.containers.run("busybox", ["ping", "-c1", "server"], network="library", rm=True)
assert b"1 packets received" in told, told
assert ketch.Engine().containers.get("server").name == "server"
assert os.popen("ketch ps --format '{{.Names}}'").read() == "server\\n"
server.remove(force=True)
engine.networks.get("library").remove()
print("done")
"""
_WITH_THREADS = """
import threading, time, ketch
threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
try:
    ketch.Engine()
except ketch.errors.UnavailableError as error:
    print(error.message, error.hint)
else:
    print(ketch.Engine().containers.run("busybox", ["echo", "inside"], rm=True).decode())
"""


def test_the_library_is_the_users(user: User) -> None:
    done = user.run("sh", "-c", 'python3 -c "$0"', _USE)
    assert (done.status, done.out) == (0, "done\n"), str(done)


def test_a_program_with_threads_is_told_what_to_do_and_that_works(user: User) -> None:
    told = user.run("python3", "-c", _WITH_THREADS)
    assert "this process has threads" in told.out
    assert "ketch unshare PROGRAM" in told.out
    inside = user.run("ketch", "unshare", "python3", "-c", _WITH_THREADS)
    assert inside.out.strip() == "inside", str(inside)


def test_unshare_is_where_files_of_containers_belong_to_their_owners(user: User) -> None:
    user.ketch.ok("run", "--rm", "-v", f"{user.home}:/home", "busybox", "sh", "-c",
                  "mkdir -p /home/theirs && chown 1000 /home/theirs")  # fmt: skip
    assert user.run("stat", "-c", "%u", "theirs").out.strip() != "1000"
    inside = user.run("ketch", "unshare", "stat", "-c", "%u", "theirs")
    assert (inside.status, inside.out) == (0, "1000\n"), str(inside)
    assert (
        user.run("ketch", "unshare", "ketch", "images", "-q").out == user.ketch("images", "-q").out
    )
    assert user.run("ketch", "unshare", "rm", "-r", "theirs").status == 0
    assert user.run("ketch", "unshare", "sh", "-c", "exit 7").status == 7
    assert user.run("ketch", "unshare", "/no/such").status == 127
    networks = user.run("ketch", "unshare", "--rootless-netns", "readlink", "/proc/self/ns/net")
    assert networks.out != user.run("readlink", "/proc/self/ns/net").out


def test_docker_speaks_to_the_users_server(user: User) -> None:
    docker = shutil.which("docker")
    if docker is None:
        pytest.skip("docker's command line is not installed")
    server = subprocess.Popen([*user.prefix(), "ketch", "serve"], stderr=subprocess.PIPE)
    try:
        path = f"{user.session}/ketch.sock"
        found = user.run("sh", "-c", f"until test -e {path}; do sleep 0.05; done;"
                         f" stat -c '%u %a' {path}")  # fmt: skip
        assert found.out == f"{user.uid} 600\n"
        user.run(docker, "context", "create", "own", "--docker", f"host=unix://{path}")
        docker_run = (docker, "--context", "own", "run", "--rm", "busybox", "id", "-u")
        done = user.run(*docker_run)
        assert (done.status, done.out) == (0, "0\n"), str(done)
        assert "rootless" in user.run(docker, "--context", "own", "info").out
    finally:
        server.terminate()
        server.wait()


def test_units_are_the_users(user: User) -> None:
    done = user.run("ketch", "serve", "--install-unit")
    assert done.status == 0, str(done)
    directory = user.home / ".config/systemd/user"
    socket = (directory / "ketch.socket").read_text(encoding="utf-8")
    assert "ListenStream=%t/ketch.sock\nSocketMode=0600\n" in socket
    assert "Group" not in socket
    assert "WantedBy=default.target" in (directory / "ketch-restart.service").read_text("utf-8")
    assert "systemctl --user enable --now ketch.socket ketch-restart.service" in done.out
    if pathlib.Path("/run/systemd/system").exists():
        assert f"loginctl enable-linger {user.name}" in done.out
