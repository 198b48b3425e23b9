"""Sandboxes of an ordinary user, and the host's programs at work on its project."""

from tests.support.users import User


def play(user: User, script: str) -> None:
    """Run a script that is told whether sandboxes can have limits; it ends with a word."""
    limits = user.ketch("run", "--rm", "--memory=64m", "busybox", "true").status == 0
    told = f'LIMITS={"x" * limits} IDENTITY=$(id -u) python3 -c "$0"'
    done = user.run("sh", "-c", told, script)
    assert (done.status, done.out) == (0, "done\n"), str(done)


_USE = """
import os, ketch
os.makedirs("project/sub")
open("project/file", "w").write("one\\n")
open("secret", "w").write("secret")
limits = {} if os.environ["LIMITS"] else dict.fromkeys(("memory", "cpus"))
with ketch.Sandbox.host("project", **limits) as sandbox:
    done = sandbox.run("id -u; pwd; echo two >> file; rmdir sub; echo x > new; ls -A $HOME; env")
    assert done.status == 0, done
    lines = done.text.splitlines()
    assert lines[0] == os.environ["IDENTITY"], lines
    assert lines[1] == os.path.realpath("project"), lines
    assert "secret" not in done.text, done
    assert sandbox.run(["cat", os.path.realpath("secret")]).status != 0
    assert open("project/file").read() == "one\\n"
    assert [(one.kind, one.path) for one in sandbox.changes()] == [
        ("changed", "file"), ("added", "new"), ("deleted", "sub"),
    ], sandbox.changes()
    sandbox.apply()
    assert open("project/file").read() == "one\\ntwo\\n"
    assert sorted(os.listdir("project")) == ["file", "new"]
with ketch.Sandbox.create("busybox", **limits) as sandbox:
    assert sandbox.run(["id", "-u"]).text == "1000\\n"
    images = len(ketch.Engine().images.list(all=True))
    sandbox.run("mkdir d; echo one > d/file; chmod 600 d/file")
    one, two = sandbox.fork(2)
    with one, two:
        assert len(ketch.Engine().images.list(all=True)) == images
        changed = one.run("stat -c '%u %a' d/file; echo two > d/file; rm -r d; mkdir d")
        assert changed.text == "1000 600\\n", changed
        assert two.run("cat d/file; ls; ls d").text == "one\\nd\\nfile\\n"
        assert one.run("ls d").text == ""
    assert sandbox.run("cat d/file").text == "one\\n"
    assert sandbox.run_code("echo $((40 + 2))", "shell").stdout == "42\\n"
print("done")
"""


def test_its_project_is_changed_when_it_takes_that_over(user: User) -> None:
    play(user, _USE)
    owners = user.run("stat", "-c", "%U", "project/new", "project/file")
    assert set(owners.out.split()) == {user.name}


_BOUNDED = """
import os, ketch
limits = {} if os.environ["LIMITS"] else dict.fromkeys(("memory", "cpus"))
bomb = "for i in $(seq 60); do sleep 60 > /dev/null 2>&1 & done; echo all"
with (
    ketch.Sandbox.create("busybox", pids=20, **limits) as one,
    ketch.Sandbox.create("busybox", pids=20, **limits) as other,
):
    done = one.run(bomb)
    assert (done.stdout, b"can't fork" in done.stderr) == (b"", True), done
    assert other.run("for i in $(seq 9); do true & done; wait; echo free").text == "free\\n"
print("done")
"""


def test_its_processes_are_bounded_with_or_without_a_cgroup(user: User) -> None:
    play(user, _BOUNDED)


_SERVES = """
import os, time, urllib.request, ketch
limits = {} if os.environ["LIMITS"] else dict.fromkeys(("memory", "cpus"))
with ketch.Sandbox.create("busybox", ports=[8080], **limits) as sandbox:
    sandbox.files.write("index.html", "served")
    sandbox.start(["httpd", "-f", "-p", "8080"])
    deadline = time.monotonic() + 20
    while True:
        try:
            said = urllib.request.urlopen(sandbox.url(8080), timeout=5).read()
            break
        except OSError:
            assert time.monotonic() < deadline
    assert said == b"served"
    assert "default" not in sandbox.run("ip route").text
print("done")
"""


def test_its_user_reaches_a_server_in_it(user: User) -> None:
    play(user, _SERVES)


_REACHES = """
import http.server, os, threading, ketch
engine = ketch.Engine()

class Answers(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"SERVED")

server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answers)
threading.Thread(target=server.serve_forever, daemon=True).start()
port = server.server_address[1]
limits = {} if os.environ["LIMITS"] else dict.fromkeys(("memory", "cpus"))
rule = f"host.docker.internal@127.0.0.1:{port}"
with ketch.Sandbox.create("busybox", engine=engine, egress=[rule], **limits) as sandbox:
    said = sandbox.run(f"wget -q -O - http://host.docker.internal:{port}/")
    assert said.text == "SERVED", (said, sandbox.connections())
    assert sandbox.run("nslookup other.example").status
    assert sandbox.run("echo x | nc -w 2 192.0.2.7 80").text == ""
    assert [(one.verdict, one.address) for one in sandbox.connections() if one.kind == "tcp"] == [
        ("allowed", f"127.0.0.1:{port}"), ("refused", "192.0.2.7:80"),
    ], sandbox.connections()
    assert "other.example" in {one.name for one in sandbox.connections()}
print("done")
"""


def test_rules_say_what_it_reaches(user: User) -> None:
    limits = user.ketch("run", "--rm", "--memory=64m", "busybox", "true").status == 0
    done = user.run("sh", "-c", f'LIMITS={"x" * limits} python3 -c "$0" 2>&1', _REACHES)
    assert (done.status, done.out.splitlines()[-1]) == (0, "done"), str(done)


def test_its_commands_are_those_of_root(user: User) -> None:
    assert user.run("sh", "-c", "mkdir commands; echo one > commands/file").status == 0
    limited = user.ketch("run", "--rm", "--memory=64m", "busybox", "true").status == 0
    limits = () if limited else ("--memory=0", "--cpus=0", "--pids-limit=0")
    ran = user.ketch(
        "sandbox", "run", "--project", f"{user.home}/commands", "--name", "theirs", *limits, "--",
        "sh", "-c", "echo two >> file; id -u; exit 3",
    )  # fmt: skip
    assert (ran.status, ran.out) == (3, f"{user.uid}\n"), ran
    assert user.ketch.ok("sandbox", "diff", "theirs").endswith("\n+two")
    assert user.ketch.ok("sandbox", "apply", "theirs") == "M file"
    assert user.ketch.ok("sandbox", "rm", "theirs") == "theirs"
    assert user.run("cat", "commands/file").out == "one\ntwo\n"
