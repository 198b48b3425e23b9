"""Requests made up from the API's description, right and wrong: each is answered, and in form.

``KETCH_TEST_SEED`` has the same requests asked again, ``KETCH_TEST_SECONDS`` more of them.
"""

import http.client
import json
import os
import pathlib
import random
import sys
import time
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode

import jsonschema
import pytest

from tests.support import images, leftovers, openapi, serving
from tests.support.commands import Engine

SECONDS = float(os.environ.get("KETCH_TEST_SECONDS", "8"))
SLOW_SECONDS = 8

NAMES = ["there", "busybox", "drum", "bridge", "none", "host", "nobody", "", "a b", "../x", "é",
         "x" * 300, "0" * 64, f"sha256:{'0' * 64}", "/there", "busybox:latest", "*"]  # fmt: skip
TEXTS = [*NAMES, "1", "-1", "true", "1h", "{}", "[]", "null", '{"label":["a=b"]}',
         '{"name":{"there":true}}', '{"status":["running"]}', '{"dangling":["true"]}',
         '{"x":1}', "/etc/passwd", "KILL", "NOSIG", "linux/amd64", "2026-01-01", "1e400", "\n",
         "a=b", "=", "::", "80/tcp", "0.0.0.0", "9" * 30, "always", "on-failure:3"]  # fmt: skip
NUMBERS = [0, 1, -1, 80, 65536, 1 << 31, (1 << 63) - 1, 1 << 63, -(1 << 63), 10**30, 1.5, 64 << 20]
ODD: list[Any] = [
    None,
    1,
    -1,
    "x",
    "",
    [],
    {},
    [None],
    [1],
    {"a": None},
    True,
    [[]],
    "\ud800",
    "a\0b",
]

# What waits for others, answers with more than one document, asks other machines, starts
# programs, or makes links in this network.
LEFT_OUT = ("/auth", "/build", "/distribution", "/events", "/session", "/images/search",
            "/images/create", "/images/load", "/push", "/attach", "/wait", "/checkpoints",
            "/start", "/restart", "/networks/create", "/connect", "/plugins", "/swarm",
            "/services", "/nodes", "/tasks",
            "/secrets", "/configs")  # fmt: skip
# The description wants a field there that it does not know itself.
WRONGLY_DESCRIBED = "'UnpackedSize' is a required property"


class Requests:
    """Makes requests up.

    Args:
        description: the API's.
        seed: with the same one the same requests are made.
    """

    def __init__(self, description: openapi.Description, seed: int) -> None:
        self._description = description
        self._random = random.Random(seed)
        self._operations = [
            (method, path, operation)
            for method, path, operation in description.operations()
            if not any(part in path for part in LEFT_OUT)
        ]

    def make(self) -> tuple[str, str, str, bytes | None]:
        """Return method, the description's path, the target, and the body."""
        method, path, operation = self._random.choice(self._operations)
        target, query, body = path, {}, None
        for parameter in operation.get("parameters", ()):
            name = parameter["name"]
            if parameter["in"] == "path":
                known = NAMES if self._chance(0.4) else NAMES[:4]
                target = target.replace(f"{{{name}}}", quote(self._random.choice(known), safe=""))
            elif parameter["in"] == "query" and name in {"follow", "stream"}:
                query[name] = "0"
            elif parameter["in"] == "query" and self._chance(0.3):
                query[name] = str(self.value(parameter, 0.1))
            elif parameter["in"] == "body":
                oddity = self._random.choice([0, 0, 0.05, 0.15])
                body = json.dumps(self.value(parameter["schema"], oddity)).encode()
                if self._chance(0.05):
                    body = self._random.choice([b"", b"{", b"[]", b"null", b"\xff", b"{}{}"])
        words = urlencode(query, errors="replace")
        return method, path, f"{target}?{words}" if words else target, body

    def value(self, schema: dict[str, Any], oddity: float, depth: int = 0) -> Any:
        """Return something that fits a schema, but for one thing in 1/``oddity``."""
        if self._chance(oddity):
            return self._random.choice(ODD)
        if "$ref" in schema:
            return self.value(self._description.definition(schema["$ref"]), oddity, depth)
        if "allOf" in schema:
            parts = [self.value(part, 0, depth) for part in schema["allOf"]]
            fields = [part.items() for part in parts if isinstance(part, dict)]
            return {name: one for part in fields for name, one in part}
        if "enum" in schema and self._chance(0.8):
            return self._random.choice(schema["enum"])
        kind = schema.get("type", "object")
        if kind == "boolean":
            return self._chance(0.5)
        if kind in {"integer", "number"}:
            return self._random.choice(NUMBERS)
        if kind == "string" or depth > 5:
            return self._random.choice([schema.get("example", "x"), *TEXTS])
        count = self._random.randrange(3)
        if kind == "array":
            return [self.value(schema["items"], oddity, depth + 1) for _ in range(count)]
        share = self._random.choice([0.1, 0.3, 0.6])
        made = {
            name: self.value(inner, oddity, depth + 1)
            for name, inner in schema.get("properties", {}).items()
            if self._chance(share)
        }
        others = schema.get("additionalProperties")
        if isinstance(others, dict):
            for _ in range(count):
                made[self._random.choice(TEXTS)] = self.value(others, oddity, depth + 1)
        return made

    def _chance(self, share: float) -> bool:
        return self._random.random() < share


@pytest.fixture
def socket(scratch: pathlib.Path, run_name: str) -> Iterator[pathlib.Path]:
    """Return the socket of a server whose engine is for this test alone."""
    program = str(pathlib.Path(sys.executable).with_name("ketch"))
    place = scratch / "random"
    engine = Engine("ketch", [program, "--root", f"{place}/root", "--state", f"{place}/state"])
    engine.ok("import", str(images.busybox_archive()), "busybox")
    engine.ok("volume", "create", "drum")
    engine.ok("run", "-d", "--init", "--network", "none", "--name", "there", "busybox",
              "sleep", "1000")  # fmt: skip
    with serving.served(engine.prefix, place / "api.sock", scratch / "random.log"):
        yield place / "api.sock"
    if identifiers := engine.ok("ps", "-aq").split():
        engine.ok("rm", "-f", "-v", *identifiers)
    leftovers.stop_zygotes(run_name)


def test_whatever_is_asked_is_answered_in_form(socket: pathlib.Path, scratch: pathlib.Path) -> None:
    description = openapi.Description()
    seed = int(os.environ.get("KETCH_TEST_SEED") or random.randrange(1 << 32))
    requests = Requests(description, seed)
    wrong = []
    end = time.monotonic() + SECONDS
    connection = serving.Connection(socket)
    while time.monotonic() < end:
        method, path, target, body = requests.make()
        began = time.monotonic()
        try:
            status, answer = _ask(connection, method, target, body)
            if status >= 500 and status not in {501, 503}:
                wrong.append(f"{method} {target} {body!r}: {status} {answer!r}")
            elif answer is not None:
                description.check(method, path, status, answer)
        except (OSError, http.client.HTTPException) as error:
            wrong.append(f"{method} {target} {body!r}: {error!r}")
            connection = serving.Connection(socket)
        except jsonschema.ValidationError as error:
            if error.message != WRONGLY_DESCRIBED:
                wrong.append(f"{method} {target} {body!r}: {error.json_path}: {error.message}")
        if time.monotonic() - began > SLOW_SECONDS:
            wrong.append(f"{method} {target} {body!r}: slow")
    assert not wrong, f"KETCH_TEST_SEED={seed}\n" + "\n".join(wrong)
    assert "traceback" not in (scratch / "random.log").read_text(encoding="utf-8"), seed


def _ask(
    connection: serving.Connection, method: str, target: str, body: bytes | None
) -> tuple[int, object]:
    """Return an answer's status, and its document if it is one."""
    connection.request(method.upper(), target, body, {"Content-Type": "application/json"})
    answer = connection.getresponse()
    data = answer.read()
    if not data or answer.getheader("Content-Type") != "application/json":
        return answer.status, None
    try:
        return answer.status, json.loads(data)
    except ValueError:
        return answer.status, None  # documents one after the other
