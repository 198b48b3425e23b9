"""Routes by which images come and go: pull, push, import, load, save."""

import base64
import binascii
import os
from typing import TYPE_CHECKING, Any, TypedDict

from ketch.api import errors
from ketch.api.documents import conform
from ketch.api.encoding import parse
from ketch.api.flows import Inlet, Outlet, body_descriptor, line
from ketch.api.images import platform_asked, with_tag
from ketch.engine.images import archive, ingest, saving
from ketch.engine.views.sources import Source
from ketch.errors import InvalidArgumentError, KetchError
from ketch.images.archive import TarSink
from ketch.images.registry.credentials import Credentials, is_encodable
from ketch.images.registry.progress import Progress
from ketch.images.registry.registries import Registries
from ketch.spec import reference as references
from ketch.spec.sizes import bar

if TYPE_CHECKING:
    from collections.abc import Callable

    from ketch.api.call import Call
    from ketch.api.router import Routes
    from ketch.engine.engine import Engine
    from ketch.engine.images.archive import PassedOver
    from ketch.engine.images.candidates import Loaded
    from ketch.images.tar import Stream

JSON = "application/json"

TAR = "application/x-tar"


class AuthConfig(TypedDict, total=False):
    """Who somebody is at a registry."""

    username: str
    password: str
    auth: str  # both, in base64
    serveraddress: str
    identitytoken: str
    registrytoken: str


class Told(Progress):
    """Progress as lines of JSON (``CreateImageInfo``, ``PushImageInfo``).

    Args:
        outlet: where they go.
    """

    __slots__ = ("_outlet",)

    def __init__(self, outlet: Outlet) -> None:
        self._outlet = outlet

    def begin(self, identifier: str, text: str) -> None:
        """Tell what begins; no ``progressDetail``, or clients would overwrite it."""
        self._outlet.tell({"status": text, "id": identifier})

    def say(self, identifier: str, status: str) -> None:
        """Tell a new state."""
        about = {"progressDetail": {}, "id": identifier} if identifier else {}
        self._outlet.tell({"status": status, **about})

    def advance(self, identifier: str, action: str, current_bytes: int, total_bytes: int) -> None:
        """Tell how far something is."""
        detail = {"current": current_bytes, **({"total": total_bytes} if total_bytes > 0 else {})}
        told = {"status": action, "progressDetail": detail, "id": identifier}
        self._outlet.tell({**told, "progress": bar(current_bytes, total_bytes)})


async def told(
    call: "Call", work: "Callable[[Engine, Outlet], None]", *, promised: bool = False
) -> None:
    """Do something in a thread that tells of its progress by lines of JSON.

    What fails after the first line is told in one more, as the answer's status is sent already.

    Args:
        call: the request.
        work: what is to be done.
        promised: whether even what fails before the first line is told in one, under status 200.
    """
    outlet = Outlet(call, JSON)
    try:
        await call.transfer(work, outlet)
    except (KetchError, OSError) as error:
        if not call.exchange.status and not promised:
            raise
        message = errors.message(error)
        await outlet.send(line({"errorDetail": {"message": message}, "error": message}))
    await outlet.end()


def credentials(text: str) -> Credentials:
    """Returns what the header X-Registry-Auth shows."""
    try:
        found: AuthConfig = shown(text, AuthConfig) or AuthConfig()
        return from_document(found)
    except InvalidArgumentError:
        return Credentials()


def shown(text: str, shape: Any) -> Any:
    """Returns what a header about registries says; None where it makes no sense.

    So dockerd has it: clients send ``null``, ``[]`` and words there, for nobody.

    Args:
        text: the header, JSON in base64 of URLs.
        shape: the type that its document has.
    """
    try:
        content = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        return conform(parse(content), shape) if content else None
    except (binascii.Error, ValueError, InvalidArgumentError):
        return None


def from_document(found: AuthConfig) -> Credentials:
    """Returns the credentials in an ``AuthConfig``.

    Raises:
        InvalidArgumentError: they are malformed.
    """
    user, password = found.get("username", ""), found.get("password", "")
    if found.get("auth") and not user:
        try:
            user, _, password = base64.b64decode(found["auth"]).decode().partition(":")
        except ValueError as error:
            raise InvalidArgumentError(f"invalid credentials: {error}") from error
    tokens = found.get("identitytoken", ""), found.get("registrytoken", "")
    if not is_encodable(user, password, *tokens):
        raise InvalidArgumentError("invalid credentials: a value is no Unicode text")
    return Credentials(user, password, *tokens)


async def create(call: "Call") -> None:
    """Answer ``POST /images/create``: a pull, or an import."""
    if call.given("fromSrc"):
        await _import(call)
        return
    name = with_tag(call.text("fromImage"), call.text("tag"))
    who = credentials(call.exchange.headers.get("x-registry-auth", ""))
    platform = platform_asked(call, since=(1, 32))
    everything = not call.text("tag") and not _has_tag(name)

    def pull(engine: "Engine", outlet: Outlet) -> None:
        from ketch.engine.images.pulling import Puller  # noqa: PLC0415 - urllib3 and all

        with Registries(os.environ, credentials=who) as registries:
            puller = Puller(engine.images, registries, Told(outlet), platform=platform)
            if everything:
                puller.pull_all(name)
            else:
                puller.pull(name)

    await told(call, pull)


def _has_tag(name: str) -> bool:
    parsed = references.parse(name)
    return bool(parsed.tag or parsed.digest)


async def _import(call: "Call") -> None:
    source = call.text("fromSrc")
    if source != "-" and not source.startswith(("http://", "https://")):
        source = f"http://{source}"  # never a file of this host
    target = with_tag(call.text("repo"), call.text("tag"))
    changes, message, platform = (
        call.texts("changes"),
        call.text("message"),
        platform_asked(call, since=(1, 32)),
    )
    inlet = Inlet(call)

    def load(engine: "Engine", outlet: Outlet) -> None:
        def take(stream: "Stream") -> None:
            image_id = ingest.import_image(
                engine.images, stream, target, changes=changes,
                message=message or f"Imported from {source}", platform=platform,
            )  # fmt: skip
            outlet.tell({"status": image_id})

        if source == "-":
            take(inlet)
            return
        with Source(source) as stream:
            take(stream)

    await told(call, load)


async def push(call: "Call") -> None:
    """Answer ``POST /images/{name}/push``."""
    name = with_tag(call["name"], call.text("tag"))
    everything = not call.text("tag")
    who = credentials(call.exchange.headers.get("x-registry-auth", ""))
    platform = platform_asked(call, since=(1, 46))

    def send(engine: "Engine", outlet: Outlet) -> None:
        from ketch.engine.images.pushing import Pusher  # noqa: PLC0415 - urllib3 and all

        with Registries(os.environ, credentials=who) as registries:
            pusher = Pusher(
                engine.images, engine.store, registries, Told(outlet), platform=platform
            )
            pushed = pusher.push_all(name) if everything else [pusher.push(name)]
        for one in pushed:
            aux = {"Tag": one.tag, "Digest": one.digest, "Size": one.size_bytes}
            outlet.tell({"progressDetail": {}, "aux": aux})

    await told(call, send)


async def load(call: "Call") -> None:
    """Answer ``POST /images/load``."""
    platform = platform_asked(call, since=(1, 48))
    quiet = call.flag("quiet", default=True)
    async with body_descriptor(call) as descriptor:

        def take(engine: "Engine", outlet: Outlet) -> None:
            def tell(loaded: "Loaded | PassedOver") -> None:
                for text in loaded.lines():
                    outlet.tell({"stream": f"{text}\n"})

            progress = Progress() if quiet else Told(outlet)
            with engine.images.opened_archive(descriptor) as source:
                archive.load(engine.images, source, platform=platform, done=tell, progress=progress)

        await told(call, take, promised=True)


async def save(call: "Call") -> None:
    """Answer ``GET /images/get``."""
    await _save(call, call.texts("names"))


async def save_one(call: "Call") -> None:
    """Answer ``GET /images/{name}/get``."""
    await _save(call, [call["name"]])


async def _save(call: "Call", names: list[str]) -> None:
    names = [name for text in names for name in text.split(",") if name]
    platform = platform_asked(call, since=(1, 48))
    outlet = Outlet(call, TAR)

    def write(engine: "Engine") -> None:
        for name in names:
            if ":" in name.rpartition("/")[2]:
                engine.images.resolve(name)
        saving.save(engine.images, names, TarSink(outlet.write), platform=platform)

    await call.transfer(write)
    await outlet.end()


ROUTES: "Routes" = (
    ("POST", "/images/create", create),
    ("POST", "/images/load", load),
    ("GET", "/images/get", save),
    ("GET", "/images/{name*}/get", save_one),
    ("POST", "/images/{name*}/push", push),
)
