"""Images as whoever built them made them, in a form that two builders' can be compared in."""

import hashlib
import io
import json
import pathlib
import re
import tarfile
from typing import Any

from tests.support.commands import Engine

# What a build's moment decides, or where it ran.
_VOLATILE = {"created", "docker_version", "container", "container_config"}


def image(engine: Engine, name: str, place: pathlib.Path) -> dict[str, Any]:
    """Return what an image is: configuration, history, and each layer's members.

    Args:
        engine: whose image it is.
        name: what it is called there.
        place: a directory to save it in.
    """
    archive = place / f"{engine.name}.tar"
    engine.ok("save", "-o", str(archive), name, timeout=300)
    with tarfile.open(archive) as saved:
        found = read(saved)
    archive.unlink()
    return found


def read(saved: tarfile.TarFile) -> dict[str, Any]:
    """Return the same of the only image in an archive of Docker's form."""
    (listed,) = json.loads(_content(saved, "manifest.json"))
    config = json.loads(_content(saved, listed["Config"]))
    history = [
        {key: value for key, value in entry.items() if key != "created"}
        for entry in config.pop("history", [])
    ]
    diff_ids = config.pop("rootfs")["diff_ids"]
    layers = [_members(_content(saved, name)) for name in listed["Layers"]]
    assert len(layers) == len(diff_ids)
    for diff_id, name in zip(diff_ids, listed["Layers"], strict=True):
        assert diff_id == f"sha256:{hashlib.sha256(_plain(_content(saved, name))).hexdigest()}"
    return {
        "config": {key: value for key, value in config.items() if key not in _VOLATILE},
        "history": history,
        "layers": layers,
    }


def _content(saved: tarfile.TarFile, name: str) -> bytes:
    member = saved.getmember(name)
    while member.issym():
        parts = pathlib.PurePosixPath(member.name).parent / member.linkname
        member = saved.getmember(str(pathlib.PurePosixPath(_normal(str(parts)))))
    file = saved.extractfile(member)
    assert file is not None
    return file.read()


def _normal(path: str) -> str:
    parts: list[str] = []
    for part in path.split("/"):
        if part == "..":
            parts.pop()
        elif part not in {"", "."}:
            parts.append(part)
    return "/".join(parts)


def _plain(content: bytes) -> bytes:
    import gzip

    return gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content


def _members(content: bytes) -> dict[str, tuple[Any, ...]]:
    """Return what each member of a layer is, without its time."""
    found: dict[str, tuple[Any, ...]] = {}
    with tarfile.open(fileobj=io.BytesIO(_plain(content))) as layer:
        for member in layer:
            name = member.name.strip("/").removeprefix("./")
            if name in {"", "."}:
                continue
            if "/.wh." in f"/{name}":
                found[name] = ()  # it only says that something is gone
                continue
            file = layer.extractfile(member) if member.isreg() else None
            digest = hashlib.sha256(file.read()).hexdigest()[:16] if file else ""
            xattrs = {
                key: value for key, value in member.pax_headers.items()
                if key.startswith("SCHILY.xattr.")
            }  # fmt: skip
            link = (
                member.linkname.strip("/").removeprefix("./") if member.islnk() else member.linkname
            )
            kind = member.type if member.type != tarfile.AREGTYPE else tarfile.REGTYPE
            found[name] = (
                kind, oct(member.mode), member.uid, member.gid, link, member.size, digest,
                (member.devmajor, member.devminor) if member.isdev() else (), xattrs,
            )  # fmt: skip
    return found


def files(found: dict[str, Any]) -> dict[str, tuple[Any, ...]]:
    """Return what an image's layers come to together, however they share it out."""
    merged: dict[str, tuple[Any, ...]] = {}
    for layer in found["layers"]:
        for name in layer:
            parent, _, last = name.rpartition("/")
            if not last.startswith(".wh."):
                continue
            gone = "/".join(filter(None, (parent, last[4:])))
            if last == ".wh..wh..opq":
                gone = f"{parent}/"
            merged = {
                path: what for path, what in merged.items()
                if path != gone and not path.startswith(f"{gone.rstrip('/')}/")
            }  # fmt: skip
        merged |= {name: what for name, what in layer.items() if "/.wh." not in f"/{name}"}
    return merged


def of_any_version(created_by: str) -> str:
    """Return a line of history without what BuildKit has written in several ways."""
    word, _, rest = created_by.partition(" ")
    if word == "ARG":  # its default, what it was given, or neither
        return f"ARG {rest.partition('=')[0]}"
    if word == "EXPOSE":  # a map, or a list
        return " ".join(["EXPOSE", *re.findall(r"\d+/\w+", rest)])
    return word if word == "HEALTHCHECK" else created_by  # Go's form of a struct or a pointer
