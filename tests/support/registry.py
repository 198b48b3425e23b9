"""Registries for tests: one in this process that can misbehave, and Debian's docker-registry."""

import contextlib
import gzip
import hashlib
import http.server
import json
import pathlib
import re
import socket
import ssl
import subprocess
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Sequence
from typing import Any

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"

# The password is "s3cret"; bcrypt, since docker-registry takes nothing else.
HTPASSWD = "alice:$2y$04$dv8SNzb5gMXOfDKQ7SFVo.ASHSauz9Gl8BH3AM24DYtOQQWkxcd8W\n"
USER, PASSWORD = "alice", "s3cret"


def sha256(content: bytes) -> str:
    """Return the digest of some bytes."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


class Handler(http.server.BaseHTTPRequestHandler):
    """One request to a fake registry."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet, or each answer waits for an acknowledgement
    registry: "FakeRegistry"

    def log_message(self, *_: object) -> None:
        """Keep quiet."""

    def answer(
        self,
        status: int,
        content: bytes = b"",
        headers: dict[str, str] | None = None,
        *,
        length: int | None = None,
    ) -> None:
        """Send an answer, whose length may be a lie."""
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
        if length is not None and length != len(content):
            self.close_connection = True

    def body(self) -> bytes:
        """Read the request's body."""
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _serve(self) -> None:
        registry = self.registry
        registry.requests.append((self.command, self.path, dict(self.headers)))
        try:
            for hook in list(registry.hooks):
                if hook(self):
                    return
            registry.serve(self)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = _serve  # noqa: N815


class FakeRegistry:
    """A registry in this process, with hooks that may answer in its place.

    Attributes:
        host: its host and port.
        blobs: content by digest.
        manifests: media type and content by repository and reference.
        requests: what was asked: method, path, headers.
        hooks: each is shown a request and returns whether it has answered.
        uploads: what has arrived, by the upload's name.
    """

    def __init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[tuple[str, str], tuple[str, bytes]] = {}
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.hooks: list[Callable[[Handler], bool]] = []
        self.uploads: dict[str, bytes] = {}
        handler = type("Bound", (Handler,), {"registry": self})
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.host = f"127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True
        )
        self._thread.start()

    def wrap(self, context: ssl.SSLContext) -> None:
        """Speak TLS from now on."""
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True)

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def add_blob(self, content: bytes, media_type: str) -> dict[str, Any]:
        """Keep a blob; return its descriptor."""
        self.blobs[sha256(content)] = content
        return {"mediaType": media_type, "digest": sha256(content), "size": len(content)}

    def add_manifest(
        self, name: str, tag: str, document: dict[str, Any], media_type: str = OCI_MANIFEST
    ) -> dict[str, Any]:
        """Keep a manifest or an index under a tag and its digest; return its descriptor."""
        content = json.dumps({"mediaType": media_type, **document}).encode()
        for reference in (tag, sha256(content)):
            self.manifests[name, reference] = (media_type, content)
        return {"mediaType": media_type, "digest": sha256(content), "size": len(content)}

    def add_image(
        self,
        name: str,
        tag: str,
        *archives: bytes,
        compress: Callable[[bytes], bytes] = lambda content: gzip.compress(content, mtime=0),
        suffix: str = "+gzip",
        **config: Any,
    ) -> dict[str, Any]:
        """Keep an image whose layers are these archives; return its manifest's descriptor."""
        layers = [self.add_blob(compress(content), OCI_LAYER + suffix) for content in archives]
        document = {
            "architecture": "amd64",
            "os": "linux",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": [sha256(content) for content in archives]},
            **config,
        }
        described = self.add_blob(json.dumps(document).encode(), OCI_CONFIG)
        manifest = {"schemaVersion": 2, "config": described, "layers": layers}
        return self.add_manifest(name, tag, manifest)

    def serve(self, request: Handler) -> None:
        """Answer as a registry does."""
        path, _, query = request.path.partition("?")
        fields = dict(urllib.parse.parse_qsl(query))
        if path == "/v2/":
            request.answer(200, b"{}")
        elif match := re.fullmatch(r"/v2/(.+)/manifests/([^/]+)", path):
            self._serve_manifest(request, match[1], urllib.parse.unquote(match[2]))
        elif match := re.fullmatch(r"/v2/(.+)/blobs/uploads/(.*)", path):
            self._serve_upload(request, match[1], match[2], fields)
        elif match := re.fullmatch(r"/v2/(.+)/blobs/([^/]+)", path):
            self._serve_blob(request, match[2])
        elif match := re.fullmatch(r"/v2/(.+)/tags/list", path):
            tags = sorted(
                tag for name, tag in self.manifests if name == match[1] and ":" not in tag
            )
            request.answer(200, json.dumps({"name": match[1], "tags": tags}).encode())
        else:
            self.refuse(request, 404, "UNSUPPORTED", "no such route")

    def refuse(
        self, request: Handler, status: int, code: str, message: str, **headers: str
    ) -> None:
        """Answer with an error document."""
        content = json.dumps({"errors": [{"code": code, "message": message}]}).encode()
        request.answer(status, content, {"Content-Type": "application/json", **headers})

    def _serve_manifest(self, request: Handler, name: str, reference: str) -> None:
        if request.command == "PUT":
            content = request.body()
            for key in (reference, sha256(content)):
                self.manifests[name, key] = (request.headers["Content-Type"], content)
            request.answer(201, b"", {"Docker-Content-Digest": sha256(content)})
            return
        found = self.manifests.get((name, reference))
        if found is None:
            self.refuse(request, 404, "MANIFEST_UNKNOWN", "manifest unknown")
            return
        headers = {"Content-Type": found[0], "Docker-Content-Digest": sha256(found[1])}
        request.answer(200, found[1], headers)

    def _serve_blob(self, request: Handler, digest: str) -> None:
        content = self.blobs.get(digest)
        if content is None:
            self.refuse(request, 404, "BLOB_UNKNOWN", "blob unknown to registry")
            return
        match = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
        if match is None:
            request.answer(200, content)
            return
        first = int(match[1])
        span = f"bytes {first}-{len(content) - 1}/{len(content)}"
        request.answer(206, content[first:], {"Content-Range": span})

    def _serve_upload(
        self, request: Handler, name: str, upload: str, fields: dict[str, str]
    ) -> None:
        body = request.body()
        if request.command == "POST":
            if fields.get("mount") in self.blobs:
                request.answer(201)
                return
            upload = f"u{len(self.uploads)}"
            self.uploads[upload] = b""
        elif upload not in self.uploads:
            self.refuse(request, 404, "BLOB_UPLOAD_UNKNOWN", "upload unknown")
            return
        self.uploads[upload] += body
        if request.command == "PUT":
            content = self.uploads.pop(upload)
            if sha256(content) != fields["digest"]:
                self.refuse(request, 400, "DIGEST_INVALID", "provided digest did not match")
                return
            self.blobs[sha256(content)] = content
            request.answer(201)
            return
        status = {"GET": 204, "DELETE": 204}.get(request.command, 202)
        arrived = len(self.uploads[upload])
        headers = {"Location": f"/v2/{name}/blobs/uploads/{upload}"}
        headers["Range"] = f"0-{max(arrived - 1, 0)}"
        request.answer(status, b"", headers)


@contextlib.contextmanager
def fake() -> Iterator[FakeRegistry]:
    """Run a fake registry."""
    registry = FakeRegistry()
    try:
        yield registry
    finally:
        registry.close()


def require_token(
    registry: FakeRegistry, realm: str = "", *, user: str = "", refresh: str = ""
) -> None:
    """Have a fake registry want a token, which it gives itself.

    Args:
        registry: which.
        realm: where it says that tokens are; its own address where empty.
        user: whom it knows, with the password ``s3cret``; anybody where empty.
        refresh: a refresh token that it gives for the password, and takes for one.
    """
    realm = realm or f"http://{registry.host}/token"

    def hook(request: Handler) -> bool:
        path, _, query = request.path.partition("?")
        if path == "/token":
            _give_token(request, query, user, refresh)
            return True
        scope = re.match(r"/v2/(.+)/(manifests|blobs|tags)/", path)
        verb = "pull" if request.command in {"GET", "HEAD"} else "pull,push"
        wanted = f"repository:{scope[1]}:{verb}" if scope else ""
        given = request.headers.get("Authorization", "")
        if given.startswith("Bearer ") and wanted.rpartition(":")[0] in given:
            return False
        request.body()
        words = f'Bearer realm="{realm}",service="fake",scope="{wanted}"'
        registry.refuse(request, 401, "UNAUTHORIZED", "authentication required",
                        **{"WWW-Authenticate": words})  # fmt: skip
        return True

    registry.hooks.append(hook)


def _give_token(request: Handler, query: str, user: str, refresh: str) -> None:
    import base64

    fields = urllib.parse.parse_qs(query or request.body().decode())
    known = not user
    given = request.headers.get("Authorization", "")
    if given.startswith("Basic "):
        known = base64.b64decode(given[6:]).decode() == f"{user or USER}:{PASSWORD}"
    if fields.get("grant_type") == ["refresh_token"]:
        known = fields.get("refresh_token") == [refresh]
    if not known:
        request.answer(401, b'{"details":"incorrect username or password"}')
        return
    answer: dict[str, Any] = {"token": f"for {' '.join(fields.get('scope', []))}"}
    if fields.get("offline_token") and refresh:
        answer["refresh_token"] = refresh
    request.answer(200, json.dumps(answer).encode())


@contextlib.contextmanager
def docker_registry(
    directory: pathlib.Path,
    *,
    password: bool = False,
    tls: bool = False,
    enter: Sequence[str] = (),
) -> Iterator[str]:
    """Run Debian's docker-registry on loopback; give its host and port.

    Args:
        directory: where its files are; with ``tls`` the certificate is ``cert.pem`` there.
        password: whether it wants USER and PASSWORD.
        tls: whether it speaks TLS.
        enter: the command prefix of the namespaces to run it in, or empty for this process's.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    directory.mkdir(parents=True, exist_ok=True)
    settings: dict[str, Any] = {
        "version": 0.1,
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": str(directory / "data")}},
        "http": {"addr": f"127.0.0.1:{port}"},
    }
    if password:
        (directory / "htpasswd").write_text(HTPASSWD, encoding="ascii")
        settings["auth"] = {"htpasswd": {"realm": "r", "path": str(directory / "htpasswd")}}
    if tls:
        make_certificate(directory)
        settings["http"]["tls"] = {
            "certificate": str(directory / "cert.pem"), "key": str(directory / "key.pem"),
        }  # fmt: skip
    (directory / "config.yml").write_text(json.dumps(settings), encoding="utf-8")  # is YAML too
    with (directory / "log").open("wb") as log:
        daemon = subprocess.Popen(
            [*enter, "docker-registry", "serve", str(directory / "config.yml")],
            stdout=log, stderr=log,
        )  # fmt: skip
        try:
            _await_port(port, daemon, enter)
            yield f"127.0.0.1:{port}"
        finally:
            daemon.terminate()
            daemon.wait(10)


def make_certificate(directory: pathlib.Path) -> None:
    """Make a certificate of its own authority for this machine: cert.pem and key.pem."""
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-days", "2", "-subj", "/CN=ketch test", "-addext",
         "subjectAltName=IP:127.0.0.1,DNS:localhost", "-keyout", str(directory / "key.pem"),
         "-out", str(directory / "cert.pem")],
        check=True, capture_output=True,
    )  # fmt: skip


def _await_port(port: int, daemon: "subprocess.Popen[bytes]", enter: Sequence[str]) -> None:
    deadline = time.monotonic() + 15
    listens = f":{port:04X} 00000000:0000 0A"  # proc(5): a listening socket's line
    while time.monotonic() < deadline and daemon.poll() is None:
        table = subprocess.run([*enter, "cat", "/proc/self/net/tcp"], check=True,
                               capture_output=True, text=True).stdout  # fmt: skip
        if listens in table:
            return
        time.sleep(0.05)
    raise RuntimeError("docker-registry does not start")
