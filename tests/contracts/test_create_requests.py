"""The request that the docker command line makes of its options, and ours: the same document."""

import http.server
import json
import os
import pathlib
import re
import shlex
import shutil
import socketserver
import subprocess
import threading
from collections.abc import Callable, Iterator

import pytest

from ketch.cli.flags import Command, parse
from ketch.errors import KetchError
from ketch.spec.options import CREATE_OPTIONS, OPTIONS, Caller, request

CREATE = Command("ketch create [OPTIONS] IMAGE", "", CREATE_OPTIONS, 1, None, False)

Ask = Callable[..., tuple[object, str]]

pytestmark = pytest.mark.skipif(
    not shutil.which("docker"), reason="docker's command line is not installed"
)


class _Daemon(http.server.BaseHTTPRequestHandler):
    """Answers what the command line asks before it creates a container, and keeps that request."""

    protocol_version = "HTTP/1.1"
    created: tuple[str, dict[str, object]]

    def log_message(self, *_words: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self._answer("")

    def do_GET(self) -> None:
        self._answer("OK")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        _Daemon.created = (self.path, json.loads(body))
        self._answer('{"Id": "0123", "Warnings": []}')

    def _answer(self, text: str) -> None:
        self.send_response(200)
        self.send_header("Api-Version", "1.50")
        self.send_header("Ostype", "linux")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text.encode())


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True

    def get_request(self) -> tuple[object, object]:  # type: ignore[override]
        connection, _ = super().get_request()
        return connection, ("docker", 0)


@pytest.fixture(scope="module")
def docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    directory = tmp_path_factory.mktemp("docker")
    address = str(directory / "docker.sock")
    environment = {
        **os.environ, "DOCKER_CONFIG": str(directory), "DOCKER_HOST": f"unix://{address}",
    }  # fmt: skip
    with _Server(address, _Daemon) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()

        def ask(*words: str) -> tuple[object, str]:
            done = subprocess.run(["docker", "create", *words], capture_output=True, text=True,
                                  env=environment, check=False, cwd="/tmp")  # fmt: skip
            if done.returncode:
                return None, done.stderr.splitlines()[0].removeprefix("docker: ")
            return _Daemon.created[1], ""

        yield ask
        server.shutdown()


def ours(*words: str) -> tuple[object, str]:
    caller = Caller("/tmp", os.environ, lambda path: pathlib.Path(path).read_bytes())
    try:
        parsed = parse(CREATE, words)
        return request(parsed.values, parsed.given, parsed.arguments, caller), ""
    except KetchError as error:
        return None, error.message


def flat(document: object) -> object:
    """A document without what says nothing: nulls, zeros, empty values, defaults."""
    if isinstance(document, dict):
        found = {key: flat(value) for key, value in document.items()}
        return {key: value for key, value in found.items() if value not in _NOTHING}
    if isinstance(document, list):
        return [flat(entry) for entry in document]
    return document


_NOTHING: tuple[object, ...] = (None, "", 0, False, [], {}, "default", [0, 0], {"Name": "no"})


def comparable(document: object) -> object:
    assert isinstance(document, dict)
    whole = {**document, **document.get("Config", {})}
    host = {**whole["HostConfig"]}
    if host.get("MemorySwappiness") == -1:
        host["MemorySwappiness"] = 0
    host["Binds"] = sorted(host.get("Binds") or ())  # docker keeps them in a map
    whole["HostConfig"] = host
    whole.pop("Config", None)
    endpoints = (whole.get("NetworkingConfig") or {}).get("EndpointsConfig") or {}
    # To be connected to the one network that was named is implied.
    needless = [name for name, value in endpoints.items() if not flat(value)]
    if needless == list(endpoints):
        whole["NetworkingConfig"] = {}
    elif needless:
        whole["NetworkingConfig"] = {
            "EndpointsConfig": {
                name: value or {"there": True} if name in needless else value
                for name, value in ((name, flat(value)) for name, value in endpoints.items())
            }
        }
    return flat(whole)


SAME = """
-a stdin
-a STDIN -i
-a stdout -a stderr -it
--blkio-weight 300 --blkio-weight-device /dev/vda:200
--device-read-bps /dev/vda:1mb --device-read-iops /dev/vda:100
--device-write-bps /dev/vda:1 --device-write-iops /dev/vda:2
--cpu-rt-period 1000 --cpu-rt-runtime 950
--expose 80 --expose 90-92/udp --expose 100/sctp
-p 80
-p 8080:80 -p 127.0.0.1:8081:81/udp -p [::1]:82:82 -p 90-92:90-92 -P
-p 127.0.0.1::83 -p 8000-8010:80 -p ::1:80:80 -p 0:80 -p :81
-p published=8080,target=80 -p published=80,target=80,protocol=udp,mode=host
-p 1.2.3.4:8080-8081:80-81 -p 80:80/TCP
--gpus all
--gpus 2
--gpus device=0,1
--gpus '"device=0,1",capabilities=utility'
--gpus driver=x,count=3
--gpus options=a
--device nvidia.com/gpu=all
--device vendor.com/class=a --device /dev/null
--health-cmd 'curl x' --health-interval 5s --health-retries 3 --health-timeout 500ms
--health-start-interval 1s --health-start-period 1m30s
--no-healthcheck
--ip 1.2.3.4 --ip6 2001:db8::1 --link-local-ip 169.254.1.1
--network foo --ip 1.2.3.4 --network-alias a --network-alias b --link a:b --link c
--network name=foo,alias=x,alias=y,ip=1.2.3.4,ip6=::1,driver-opt=a=b,gw-priority=5
--network name=foo,mac-address=92:d0:c6:0a:29:33,link-local-ip=169.254.1.1
--network foo --network bar --network-alias a
--network container:abc
--network none
--net=host --mac-address 92:d0:c6:0a:29:33
--network bridge --link a
--link a:b
--ipc container:x --pid container:y --uts host --userns host --cgroupns host
--ipc foo
--isolation hyperv
--log-driver json-file --log-opt max-size=10m --log-opt max-file=3
--log-opt foo
--restart always
--restart on-failure:3
--restart no
--restart foo
--runtime runc
--security-opt writable-cgroups=true --security-opt label:type:foo
--security-opt apparmor=foo --security-opt systempaths=unconfined
--storage-opt size=10G --storage-opt a=b
--tmpfs /a:size=1m --tmpfs /b
--ulimit nofile=1024:2048
--volume-driver local --volumes-from a:ro --volumes-from b
-v /a -v bb:/b -v ./c:/c -v /d:/e:ro,z -v a/b:/c
--group-add 10 --cgroup-parent /a --annotation a=b --annotation c --init
--stop-timeout 5 --stop-signal foo --domainname d -h a_b --oom-kill-disable
--mount type=volume,src=v,dst=/a,volume-nocopy,volume-label=a=b,volume-label=c
--mount type=volume,src=v,dst=/a,volume-driver=local,volume-opt=type=tmpfs,volume-opt=o=size=1m
--mount type=volume,src=v,dst=/a,volume-subpath=x/y
--mount dst=/a
--mount type=image,src=busybox,dst=/a,image-subpath=etc
--mount type=bind,src=./x,dst=/a,bind-nonrecursive
--mount type=bind,src=/x,dst=/a,bind-recursive=readonly,ro,bind-propagation=rprivate
--mount type=bind,src=/x,dst=/a,consistency=Cached,Readonly
--mount type=tmpfs,dst=/a,tmpfs-size=1m,tmpfs-mode=1777
--mount type=volume,src=./x,dst=/a
--mount type=volume,src=v,dst=/a,volume-label=
--mount type=volume,src=v,dst=/a,volume-opt=x
"""

REFUSED = """
-a stdout -a foo
--blkio-weight 70000
--blkio-weight-device vda:200
--blkio-weight-device /dev/vda:5
--blkio-weight-device /dev/vda
--device-read-bps vda:1
--device-read-bps /dev/vda:x
--device-read-iops /dev/vda:-1
--expose 80:90
--expose x
--expose 80-78
--expose ''
-p 80:x
-p 70000:80
-p 80-82:80-83
-p a.b:80:80
-p 80:80/foo
-p 127.0.0.1:80
-p published=8080
--gpus x=y
--gpus count=x
--gpus ''
--no-healthcheck --health-cmd x
--health-interval -5s
--health-interval 5
--health-retries -1
--network host --network foo
--network bridge --network-alias a
--network name=foo,foo=bar
--network name=foo,ip=1.2.3.4 --ip 1.2.3.5
--network name=foo,alias=a --network-alias c
--network name=foo,gw-priority=x
--network name=foo,driver-opt=x
--network foo --network foo
--network ''
--mac-address zz
--link a:b:c
--pid foo
--pid container:
--uts container:x
--userns foo
--log-driver none --log-opt a=b
--restart on-failure:x
--restart always --rm
--security-opt foo
--storage-opt size
--shm-size 1x
--stop-timeout x
--device ''
--mount type=bind,src=/x,dst=/a,bind-recursive=readonly
--mount type=bind,src=/x,dst=/a,bind-recursive=foo
--mount type=bind,src=/x,dst=/a,volume-nocopy
--mount type=bind,src=/x,dst=/a,image-subpath=x
--mount type=tmpfs,dst=/a,tmpfs-mode=9
--mount type=tmpfs,dst=/a,tmpfs-size=x
--mount type=bind,src=/x,dst=/a,ro=foo
--mount type=bind,src=/x,dst=/a,foo=bar
--mount type=bind,src=/x,dst=/a,foo
-v ''
-v /a:/b:ro:x
"""


@pytest.mark.parametrize("line", SAME.strip().splitlines())
def test_the_same_request(docker: Ask, line: str) -> None:
    words = [*shlex.split(line), "busybox"]
    theirs, error = docker(*words)
    assert not error
    made, error = ours(*words)
    assert not error
    assert comparable(made) == comparable(theirs)


@pytest.mark.parametrize("line", REFUSED.strip().splitlines())
def test_the_same_refusal(docker: Ask, line: str) -> None:
    words = [*shlex.split(line), "busybox"]
    theirs, error = docker(*words)
    assert theirs is None
    assert ours(*words) == (None, error)


def test_every_option_of_dockers_is_there() -> None:
    """But for those of Windows; hidden ones are aliases or stand in the old notes."""
    listed = subprocess.run(["docker", "run", "--help"], capture_output=True, text=True,
                            check=True).stdout  # fmt: skip
    theirs = set(re.findall(r"^ +(?:-\w, )?--([a-z0-9-]+)", listed, re.MULTILINE)) - {"help"}
    windows = {"cpu-count", "cpu-percent", "io-maxbandwidth", "io-maxiops"}
    assert len(theirs) > 90
    assert theirs - windows - {option.name for option in OPTIONS} == set()
    letters = set(re.findall(r"^ +-(\w), --([a-z0-9-]+)", listed, re.MULTILINE))
    assert letters <= {(option.shorthand, option.name) for option in OPTIONS}
