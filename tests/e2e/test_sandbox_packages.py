"""Packages that people use, installed in a sandbox that reaches the package index alone."""

import ipaddress
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import urllib.parse
import urllib.request

import pytest

import ketch
from ketch import Sandbox
from tests.support.images import CACHE

PROGRAMS = {place: place for place in ("/usr", "/lib", "/lib64") if pathlib.Path(place).exists()}
pytestmark = pytest.mark.in_process

_PACKAGES = ("numpy", "matplotlib")
_KIND = "application/vnd.pypi.simple.v1+json"
_SECONDS = 10
_ASK = """
import os
from pip._internal.configuration import Configuration
from pip._internal.models.index import PyPI
known = Configuration(isolated=False)
known.load()
chosen = dict(known.items())
print(chosen.get(':env:.index-url') or chosen.get('global.index-url') or PyPI.simple_url)
"""
_PLOT = """
import numpy, matplotlib.pyplot as plt
x = numpy.linspace(0, 1, 50)
_ = plt.plot(x, x ** 2)
plt.title('a plot')
float(numpy.trapezoid(x ** 2, x) if hasattr(numpy, 'trapezoid') else numpy.trapz(x ** 2, x))
"""


def _index() -> str:
    """The index that this machine's own pip asks."""
    if not pathlib.Path("/usr/lib/python3/dist-packages/pip").exists():
        pytest.skip("this machine's Python has no pip")
    asked = subprocess.run(
        ["/usr/bin/python3", "-c", _ASK], capture_output=True, text=True, check=True
    )
    return asked.stdout.strip().rstrip("/")


def _servers(index: str) -> list[str]:
    """The index's server, and those that it says its files are on; each as a rule."""
    request = urllib.request.Request(f"{index}/{_PACKAGES[0]}/", headers={"Accept": _KIND})
    try:
        with urllib.request.urlopen(request, timeout=_SECONDS) as answer:
            listed = json.load(answer)["files"]
    except (OSError, ValueError, KeyError) as error:
        pytest.skip(f"no package index is reached from here: {error}")
    urls = [urllib.parse.urlsplit(urllib.parse.urljoin(answer.url, one["url"])) for one in listed]
    rules = []
    for host, port in sorted({(one.hostname, one.port or 443)
                              for one in (urllib.parse.urlsplit(answer.url), *urls)}):  # fmt: skip
        assert host is not None
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        near = sorted({str(one[4][0]) for one in found
                       if not ipaddress.ip_address(one[4][0]).is_global})  # fmt: skip
        rules += [f"{host}@{address}:{port}" for address in near] or [f"{host}:{port}"]
    return rules


def test_numbers_and_a_plot(library: ketch.Engine, tmp_path: pathlib.Path) -> None:
    index = _index()
    rules = _servers(index)
    kept = CACHE / "packages"  # wheels that were downloaded once; the index is asked each time
    authorities = os.environ.get("SSL_CERT_FILE", "/etc/ssl/certs/ca-certificates.crt")
    with Sandbox.create(
        "busybox", engine=library, memory="2g", disk="1g", egress=rules,
        env={"HOME": "/tmp", "PYTHONPATH": "/workspace/site", "PIP_CERT": "/certificates"},
        mounts={**PROGRAMS, os.path.realpath(authorities): "/certificates"},
    ) as sandbox:  # fmt: skip
        if kept.exists():
            sandbox.files.upload(kept, "/tmp/kept")
        for words in (["download", "-d", "/tmp/kept"], ["install", "--target", "/workspace/site"]):
            done = sandbox.run(
                ["python3", "-m", "pip", *words, "-q", "--only-binary", ":all:", "--index-url",
                 index, "--find-links", "/tmp/kept", *_PACKAGES], timeout=240,
            )  # fmt: skip
            assert done.status == 0, done
        told = sandbox.connections()
        assert {(one.verdict, one.reason) for one in told} == {("allowed", "")}, told
        assert {one.name for one in told} <= {re.split("[@:]", rule)[0] for rule in rules}
        if not kept.exists():
            sandbox.files.download("/tmp/kept", tmp_path / "packages")
            shutil.move(tmp_path / "packages", kept)
        found = sandbox.run_code(_PLOT, timeout=120)
        assert found.error is None, found
        assert found.text is not None
        assert float(found.text) == pytest.approx(1 / 3, abs=1e-3)
        (picture,) = found.pictures()
        assert picture.startswith(b"\x89PNG\r\n")
        table = sandbox.run_code("numpy.arange(6).reshape(2, 3)")
        assert table.text == "array([[0, 1, 2],\n       [3, 4, 5]])"
        failed = sandbox.run_code("numpy.linalg.inv(numpy.zeros((2, 2)))").error
        assert failed is not None
        assert failed.name == "LinAlgError"
