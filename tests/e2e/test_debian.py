"""A whole Debian: an interactive bash, apt with its packages, a server in the background."""

import time
import urllib.error
import urllib.request

import pytest

from tests.support.commands import Engine, finish

pytestmark = pytest.mark.timeout(300)


def test_bash_on_a_terminal(engine: Engine, debian: str) -> None:
    child = engine.terminal("run", "--rm", "-it", "-h", "boat", debian, "bash")
    child.expect(r"root@boat:/# ")
    child.sendline("cat /etc/os-release | grep ^VERSION_CODENAME; tty; ps -o pid= -p $$ || echo $$")
    child.expect("VERSION_CODENAME=bookworm")
    child.expect("/dev/pts/0")
    child.expect(r"root@boat:/# ")
    child.send("echo compl\x15echo edited\r")  # ^U: the line editor works
    child.expect("edited\r\n")
    child.sendline("sh -c 'echo begun; exec sleep 100'")
    child.expect("begun\r\n")
    child.send("\x1a")  # ^Z: job control works
    child.expect("Stopped")
    child.sendline("fg")
    child.expect("sleep 100'\r\n")
    time.sleep(0.5)
    child.sendintr()
    child.expect(r"root@boat:/# ")
    child.sendline("exit 11")
    assert finish(child) == 11


def test_perl_and_dpkg_work(engine: Engine, debian: str) -> None:
    out = engine.ok(
        "run",
        "--rm",
        debian,
        "sh",
        "-c",
        "perl -e 'print 6*7, qq(\\n)'; dpkg -s apt | grep ^Status; id www-data",
    )
    assert out.splitlines() == [
        "42",
        "Status: install ok installed",
        "uid=33(www-data) gid=33(www-data) groups=33(www-data)",
    ]


def test_files_keep_owners_modes_and_capabilities(engine: Engine, debian: str) -> None:
    out = engine.ok("run", "--rm", debian, "stat", "-c", "%a %U %G", "/usr/bin/passwd",
                    "/var/cache/apt/archives/partial", "/usr/bin/chage")  # fmt: skip
    assert out.splitlines() == ["4755 root root", "700 _apt root", "2755 root shadow"]


def test_apt_installs_a_server_that_answers(ketch_with_debian: Engine) -> None:
    """Through the default network: names, packages, then a connection from the host."""
    ketch = ketch_with_debian
    script = (
        "apt-get -qq update && apt-get -qq install -y --no-install-recommends lighttpd >/dev/null"
        " && echo hello from debian > /var/www/html/index.html && echo ready"
        " && exec lighttpd -D -f /etc/lighttpd/lighttpd.conf"
    )
    container = ketch.ok("run", "-d", "-e", "DEBIAN_FRONTEND=noninteractive", "debian", "sh", "-c",
                         script)  # fmt: skip
    deadline = time.monotonic() + 240
    while "ready" not in ketch("logs", container).out.splitlines():
        running = ketch.ok("ps", "-q")
        assert running, ketch("logs", container)
        assert time.monotonic() < deadline, ketch("logs", container)
        time.sleep(0.5)
    address = ketch.ok("exec", container, "hostname", "-I").split()[0]
    for _ in range(50):
        try:
            with urllib.request.urlopen(f"http://{address}/", timeout=5) as reply:
                assert reply.read() == b"hello from debian\n"
            break
        except urllib.error.URLError:
            time.sleep(0.1)
    else:
        pytest.fail("the server never answered")
    ketch.ok("stop", container)
    assert "Exited (0)" in ketch.ok("ps", "-a")
    ketch.ok("rm", container)


@pytest.fixture
def ketch_with_debian(ketch: Engine) -> Engine:
    """Return ketch with the image ``debian``, where packages can be fetched at all."""
    from tests.support import images

    if not images.packages_reachable():
        pytest.skip("no Debian mirror can be reached")
    if "debian" not in ketch.ok("images"):
        ketch.ok("import", str(images.debian_archive()), "debian", timeout=120)
    return ketch
