"""From a request to a recorded container with a writable root of its own."""

import os
from contextlib import contextmanager, suppress

from ketch.engine import configuration_file, host, user_namespaces
from ketch.engine.configuration import configuration, devices, mounts, runtimes, sharing, storage
from ketch.engine.containers import telling
from ketch.engine.networks import linking
from ketch.engine.records import names
from ketch.errors import ConflictError, InvalidArgumentError, KetchError, NotFoundError
from ketch.linux.scopes import owned
from ketch.spec import user_namespaces as user_ids

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator

    from ketch.engine.engine import Engine
    from ketch.engine.records.rows import Container
    from ketch.spec.container import BindOptions, Request


def create(
    engine: "Engine",
    request: "Request",
    *,
    name: str = "",
    keep: bool = False,
    attached: bool = False,
    shallow_binds: bool = False,
) -> "Container":
    """Make a container; nothing of it is left when that fails.

    Args:
        engine: where.
        request: what is asked for.
        name: its name, or empty for one that is made up.
        keep: whether the engine's keeper stays in charge of it, to start it.
        attached: whether somebody is attached to it from its start on.
        shallow_binds: whether what is mounted below its read-only bind mounts stays writable.

    Returns:
        The container; its record holds the completed request.

    Raises:
        NotFoundError: there is no such image.
        InvalidArgumentError: something in the request cannot be.
        ConflictError: the name is taken, or the identifier file exists.
    """
    reference = request["Config"].get("Image", "")
    image = engine.images.resolve(reference, request.get("Platform", ""))
    container_id = names.new_id()
    request = _with_user_namespace(engine, sharing.by_id(engine, request))
    request = runtimes.settle(engine.settings, request)
    keeps_user = user_ids.keeps_user(request["HostConfig"].get("UsernsMode", ""))
    request = user_namespaces.settle(request, is_user=bool(engine.settings.home))
    complete, warnings = configuration.complete(request, image.config, container_id, host.examine())
    try:
        linked = linking.resolve(engine, request)
        points = mounts.resolve(engine, complete)
    except KetchError:
        if name:
            engine.containers.require_free(name)  # what Docker looks at before
        raise
    complete["HostConfig"].pop("Links", None)  # on record by the others' ids, in rows of their own
    if shallow_binds:
        for point in points:
            if point["Type"] == "bind" and not point["RW"]:
                options: BindOptions = {**point["Spec"].get("BindOptions", {})}
                options["ReadOnlyNonRecursive"] = True
                point["Spec"] = {**point["Spec"], "BindOptions": options}
    if complete["HostConfig"].get("DeviceRequests"):
        devices.gather(complete["HostConfig"])  # whether there are such devices
    command = configuration.arguments(complete["Config"])
    with _identifier_file(complete["HostConfig"].get("ContainerIDFile", ""), container_id):
        container = engine.containers.create_record(
            container_id,
            name=name,
            image_id=image.id,
            image_reference=reference,
            record={
                "Path": command[0],
                "Args": command[1:],
                "Warnings": warnings,
                **complete,
                "Mounts": points,
            },
            auto_remove=complete["HostConfig"].get("AutoRemove", False),
            ids=user_ids.count(complete["HostConfig"].get("UsernsMode", "")),
        )
        engine.settings.tell(telling.of_creation, container, image.id)
        try:
            engine.endpoints.declare(container_id, complete, linked)
            directory = engine.settings.container_directory(container_id)
            os.mkdir(f"{directory}/rootfs", 0o700)
            ids = user_namespaces.shift_of(engine, container)
            snapshotter = engine.images.snapshotter
            snapshotter.prepare(directory, image.chain_ids, ids=ids)
            engine.settings.tell(snapshotter.describe_root, directory, image.chain_ids)
            if keeps_user:
                from ketch.engine.containers import accounts  # noqa: PLC0415 wanted by few

                own = user_namespaces.of_process("self")
                accounts.add_caller(snapshotter, directory, complete, own)
            if storage.limit(directory, container_id, complete["HostConfig"]):
                engine.settings.tell(
                    storage.describe, directory, container_id, complete["HostConfig"]
                )
            mounts.acquire(engine, container_id, points)
            return engine.containers.mark_created(container_id, keep=keep, attached=attached)
        except BaseException:
            with suppress(KetchError):
                engine.containers.discard(container_id)
            raise


def _with_user_namespace(engine: "Engine", request: "Request") -> "Request":
    """Say which ids a container is to have for which nothing is said of that.

    Whose namespaces it shares, that one's ids it has; for others the configuration file decides.
    """
    resources = request["HostConfig"]
    if resources.get("UsernsMode"):
        return request
    mode = configuration_file.user_namespace(engine.settings)
    if not user_ids.is_apart(mode):
        return request
    for reference in sharing.donors(request):
        try:
            donor = engine.containers.find(reference)
        except NotFoundError:
            continue  # that is said when it starts
        apart = user_ids.is_apart(donor.record["HostConfig"].get("UsernsMode", ""))
        mode = f"container:{reference}" if apart else "host"
    return {**request, "HostConfig": {**resources, "UsernsMode": mode}}


@contextmanager
def _identifier_file(path: str, container_id: str) -> "Generator[None, None, None]":
    """Write a container's identifier to a file that must be new, and only if it was made."""
    if not path:
        yield
        return
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except FileExistsError as error:
        raise ConflictError(
            f"container ID file found, make sure the other container isn't running or delete {path}"
        ) from error
    except OSError as error:
        raise InvalidArgumentError(
            f"failed to create the container ID file {path}: {(error.strerror or '').lower()}"
        ) from error
    with owned(descriptor):
        try:
            yield
            os.write(descriptor, container_id.encode())
        except BaseException:
            os.unlink(path)
            raise
