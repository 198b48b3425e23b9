"""The pages under docs/ that one types along with: their commands, typed."""

import concurrent.futures
import contextlib
import ipaddress
import json
import pathlib
import re
import shlex
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest

from tests.support import images, leftovers, peers
from tests.support.commands import Engine

pytestmark = pytest.mark.timeout(400)

DOCS = images.CHECKOUT / "docs"
_SECTION = re.compile(r"^## (.+?)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
_CONSOLE = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
_PYTHON = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(r"^# (.+)$", re.MULTILINE)
ETH0 = "eth0"  # what a machine of the test's calls its uplink


class Page:
    """A page's sections, each with the commands in it."""

    def __init__(self, name: str, ketch: Engine, directory: pathlib.Path) -> None:
        text = DOCS.joinpath(name).read_text(encoding="utf-8")
        self.sections = dict(_SECTION.findall(text))
        self._ketch = ketch
        self._directory = directory

    def code(self, section: str) -> str:
        """Return the Python program in a section."""
        (code,) = re.findall(
            r"^```python\n(.*?)^```", self.sections[section], re.MULTILINE | re.DOTALL
        )
        return str(code)

    def type(self, section: str) -> list[str]:
        """Type a section's commands; return what each printed."""
        printed = []
        for line in _COMMAND.findall(self._console(section)):
            command = re.sub(r"^ketch\b", shlex.join(self._ketch.prefix), line)
            done = subprocess.run(
                ["bash", "-c", command], cwd=self._directory, check=False, capture_output=True,
                text=True, timeout=180,
            )  # fmt: skip
            assert done.returncode == 0, f"{line}\n{done.stdout[-1000:]}\n{done.stderr[-1000:]}"
            printed.append(done.stdout)
        return printed

    def _console(self, section: str) -> str:
        blocks = re.findall(
            r"^```console\n(.*?)^```", self.sections[section], re.MULTILINE | re.DOTALL
        )
        return "".join(blocks)


@pytest.fixture
def debian_ketch(ketch: Engine) -> Engine:
    """Return ketch with an image ``debian``."""
    if "debian" not in ketch.ok("images"):
        try:
            archive = images.debian_archive()
        except images.CannotMakeError as error:
            pytest.skip(f"no Debian image: {error}")
        ketch.ok("import", str(archive), "debian", timeout=120)
    if not subprocess.run(["which", "curl"], check=False, capture_output=True).stdout:
        pytest.skip("curl is not installed")
    return ketch


def get(url: str) -> str:
    """Fetch a page."""
    with urllib.request.urlopen(url, timeout=10) as response:
        return str(response.read().decode())


def host_addresses() -> list[str]:
    """Return the host's own IPv4 addresses."""
    listing = json.loads(
        subprocess.run(["ip", "-j", "-4", "address"], check=True, capture_output=True).stdout
    )
    return [
        str(ipaddress.ip_address(entry["local"])) for link in listing for entry in link["addr_info"]
    ]


@contextlib.contextmanager
def machine(run_name: str) -> Iterator[tuple[list[str], str]]:
    """Another machine, wired to this host: a command prefix, and the host's address from there."""
    name = f"far-{run_name[-6:]}"
    inside = ["ip", "netns", "exec", name]
    ip = ["ip"]
    subprocess.run([*ip, "netns", "add", name], check=True)
    try:
        for words in (
            ["link", "add", name, "type", "veth", "peer", "name", ETH0, "netns", name],
            ["address", "add", "198.18.77.1/30", "dev", name],
            ["link", "set", name, "up"],
            ["-n", name, "address", "add", "198.18.77.2/30", "dev", ETH0],
            ["-n", name, "link", "set", ETH0, "up"],
        ):
            subprocess.run([*ip, *words], check=True)
        yield inside, "198.18.77.1"
    finally:
        subprocess.run([*ip, "netns", "delete", name], check=True)
        deadline = time.monotonic() + 5
        while pathlib.Path("/sys/class/net", name).exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        leftovers.remove_named_namespaces()


def test_building(
    debian_ketch: Engine, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = Page("build.md", debian_ketch, tmp_path)
    section = page.sections["An application"]
    section += page.sections["With Compose"]
    files = {"app.py": "python", "Dockerfile": "dockerfile", "compose.yaml": "yaml"}
    for name, language in files.items():
        (text,) = re.findall(rf"^```{language}\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
        (tmp_path / name).write_text(text)
    page.type("An application")
    printed = page.type("Run it")
    assert "visit number 1\n" in printed
    peers.give_plugins(tmp_path)
    if not (tmp_path / "cli-plugins" / "docker-compose").exists():
        pytest.skip("make peers has not been run: it has today's Compose")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    assert "visit number 1\n" in page.type("With Compose")


def test_nginx(debian_ketch: Engine, tmp_path: pathlib.Path, run_name: str) -> None:
    page = Page("nginx.md", debian_ketch, tmp_path)
    links = leftovers.state(run_name)["mount"]
    page.type("Install it, keep the result")
    described = json.loads(page.type("A network of its own")[1])
    assert described[0]["IPAM"]["Config"] == [
        {"Subnet": "192.168.99.0/24", "Gateway": "192.168.99.1"}
    ]
    try:
        _, port = page.type("Run it, and let others in")[:2]
        assert "80/tcp -> 0.0.0.0:8888" in port
        for address in host_addresses():
            assert "Welcome to nginx" in get(f"http://{address}:8888/")
        with machine(run_name) as (inside, host):
            far = subprocess.run([*inside, "curl", "-sS", "-m", "5", f"http://{host}:8888/"],
                                 check=False, capture_output=True, text=True)  # fmt: skip
            assert "Welcome to nginx" in far.stdout, far.stderr
        log = debian_ketch.ok("exec", "bird", "cat", "/var/log/nginx/access.log")
        assert "198.18.77.2" in log, "the server does not see its clients' own addresses"
    finally:
        page.type("And take it all away")
    with pytest.raises(urllib.error.URLError):
        get("http://localhost:8888/")
    assert "mynginxbridge" not in debian_ketch.ok("network", "ls")
    assert leftovers.state(run_name)["mount"] == links


def test_flask_and_redis(debian_ketch: Engine, tmp_path: pathlib.Path) -> None:
    page = Page("flask-redis.md", debian_ketch, tmp_path)
    page.type("Two images")
    tmp_path.joinpath("app.py").write_text(page.code("The application"), encoding="utf-8")
    try:
        *_, first, second = page.type("A network, a volume, two containers")
        assert (first, second) == ("visit number 1\n", "visit number 2\n")
        address = debian_ketch.ok("inspect", "--format",
                                  "{{.NetworkSettings.Networks.counting.IPAddress}}",
                                  "redis")  # fmt: skip
        ping = "import redis, sys; print(redis.Redis(host=sys.argv[1]).ping())"
        for host in ("redis", address):
            assert debian_ketch.ok("exec", "counter", "python3", "-c", ping, host) == "True"
        with concurrent.futures.ThreadPoolExecutor(50) as pool:
            counts = list(pool.map(get, ["http://localhost:5000/"] * 1000))
        assert sorted(int(text.split()[-1]) for text in counts) == list(range(3, 1003))
        assert page.type("The data stays")[-1] == "visit number 1003\n"
    finally:
        page.type("And take it all away")
    assert debian_ketch.ok("volume", "ls", "-q") == ""
