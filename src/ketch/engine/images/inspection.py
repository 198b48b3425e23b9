"""What ``image inspect`` and ``history`` tell of an image, in the Docker Engine API's words."""

from ketch.errors import InvalidArgumentError
from ketch.spec import reference as references
from ketch.spec.template_functions import NilSlice, Struct
from ketch.spec.timestamps import UNKNOWN_NS, ZERO, created_ns, rfc3339

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ketch.engine.images.image import Image
    from ketch.engine.images.images import Images

# The fields of a configuration in the order of Docker's; one that is absent or empty is not shown,
# and to a template the zero of its type.
_CONFIG_FIELDS: "dict[str, Any]" = {
    "User": "", "ExposedPorts": {}, "Env": NilSlice(), "Entrypoint": NilSlice(), "Cmd": NilSlice(),
    "Volumes": {}, "WorkingDir": "", "Labels": {}, "StopSignal": "", "ArgsEscaped": False,
    "Healthcheck": None, "OnBuild": NilSlice(), "Shell": NilSlice(),
}  # fmt: skip
# What an image may lack: fields that Docker leaves out where they are empty, and those that it had
# and that its templates still know.
_UNSAID: "dict[str, Any]" = {
    "Variant": "", "OsVersion": "", "Container": "", "ContainerConfig": None, "VirtualSize": 0,
    "Descriptor": None, "Manifests": NilSlice(),
}  # fmt: skip
MISSING = "<missing>"


class Step:
    """One line of an image's history.

    Attributes:
        image_id: the image that ended with it, or MISSING.
        created_ns: when, or UNKNOWN_NS.
        created_by: the command.
        tags: familiar names of that image.
        size_bytes: bytes of its layer's files.
        comment: whatever its maker had to say.
    """

    __slots__ = ("comment", "created_by", "created_ns", "image_id", "size_bytes", "tags")

    def __init__(self, entry: "dict[str, Any]", size_bytes: int) -> None:
        self.image_id = MISSING
        self.created_ns = created_ns(entry.get("created") or "")
        self.created_by: str = entry.get("created_by") or ""
        self.tags: list[str] = []
        self.size_bytes = size_bytes
        self.comment: str = entry.get("comment") or ""


def repo_tags(image: "Image") -> list[str]:
    """Returns an image's names with a tag, as people write them."""
    names = map(references.parse, image.names)
    return [name.familiar for name in names if not name.digest]


def repo_digests(image: "Image") -> list[str]:
    """Returns an image's names with a digest, as people write them."""
    names = map(references.parse, image.names)
    return [f"{name.familiar_name}@{name.digest}" for name in names if name.digest]


def moment(moment_ns: int) -> str:
    """Returns a moment in RFC 3339, Go's zero where it is unknown."""
    return ZERO if moment_ns in {0, UNKNOWN_NS} else rfc3339(moment_ns)


def document(images: "Images", image: "Image") -> Struct:
    """Returns what is known of an image: ImageInspect in the API.

    Raises:
        NotFoundError: its configuration is missing.
    """
    config = image.document
    shown: dict[str, Any] = {
        "Id": image.id,
        "RepoTags": repo_tags(image),
        "RepoDigests": repo_digests(image),
        "Parent": image.parent_id,
        "Comment": config.get("comment", ""),
        "Created": config.get("created") or ZERO,
        "DockerVersion": config.get("docker_version", ""),
        "Author": config.get("author", ""),
        "Config": _config(image.config),
        "Architecture": config["architecture"],
    }
    if config.get("variant"):
        shown["Variant"] = config["variant"]
    shown["Os"] = config["os"]
    if config.get("os.version"):
        shown["OsVersion"] = config["os.version"]  # type: ignore[typeddict-item] # Windows's
    return Struct(
        {
            **shown,
            "Size": image.size_bytes,
            "GraphDriver": images.snapshotter.description(image.chain_ids),
            "RootFS": Struct(
                {"Type": "layers", "Layers": list(config["rootfs"]["diff_ids"])}, "RootFS"
            ),
            "Metadata": Struct({"LastTagTime": moment(image.tagged_ns)}, "Metadata"),
        },
        "ImageInspect",
        optional=_UNSAID,
    )


def history(images: "Images", image: "Image") -> list[Step]:
    """Returns the steps by which an image came about, the newest first.

    Raises:
        InvalidArgumentError: its history does not fit its layers.
        NotFoundError: its configuration or a layer is missing.
    """
    chain_ids = image.chain_ids
    steps: list[Step] = []
    layer = 0
    for entry in image.document.get("history") or ():
        size_bytes = 0
        if not entry.get("empty_layer"):
            if layer >= len(chain_ids):
                raise InvalidArgumentError("too many non-empty layers in History section")
            size_bytes = images.snapshotter.size_bytes(chain_ids[layer])
            layer += 1
        steps.append(Step(dict(entry), size_bytes))
    steps.reverse()
    ancestor: Image | None = image
    for step in steps:
        if ancestor is None:
            break
        step.image_id = ancestor.id
        step.tags = repo_tags(ancestor)
        ancestor = images.parent(ancestor)
    return steps


def _config(config: "Any") -> Struct:
    found = {key: config[key] for key in _CONFIG_FIELDS if config.get(key)}
    return Struct(found, "Config", optional=_CONFIG_FIELDS)
