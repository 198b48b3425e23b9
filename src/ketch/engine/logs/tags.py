"""What a log says of its container: labels and variables chosen by options, and its tag."""

import time

from ketch.errors import InvalidArgumentError
from ketch.spec.timestamps import rfc3339

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ketch.engine.records.rows import Container

_SHORT = 12


def attributes(container: "Container", options: "Mapping[str, str]") -> dict[str, str]:
    """Returns the labels and variables of a container that its log is to show.

    Args:
        container: the container.
        options: ``labels`` and ``env`` list names, ``labels-regex`` and ``env-regex`` match them.

    Raises:
        InvalidArgumentError: a regular expression is malformed.
    """
    config = container.record.get("Config", {})
    labels: dict[str, str] = config.get("Labels") or {}
    variables = dict(entry.partition("=")[::2] for entry in config.get("Env") or ())
    found: dict[str, str] = {}
    for name, values in (("labels", labels), ("env", variables)):
        listed = options.get(name, "").split(",") if options.get(name) else []
        found |= {key: values[key] for key in listed if key in values}
        if pattern := options.get(f"{name}-regex"):
            import re  # noqa: PLC0415 - a monitor rarely needs it

            try:
                expression = re.compile(pattern)
            except re.error as error:
                raise InvalidArgumentError(
                    f"failed to initialize logging driver: error parsing regexp: {error}"
                ) from error
            found |= {key: value for key, value in values.items() if expression.search(key)}
    return found


def tag(container: "Container", template: str) -> str:
    """Returns what a container is called in a log.

    Args:
        container: the container.
        template: Docker's, such as ``{{.Name}}/{{.ID}}``; its short identifier where empty.

    Raises:
        InvalidArgumentError: the template is malformed.
    """
    if not template:
        return container.id[:_SHORT]
    if "{{" not in template:
        return template
    from ketch.spec.template import Template  # noqa: PLC0415 - a monitor rarely needs it
    from ketch.spec.template_functions import Struct  # noqa: PLC0415
    from ketch.spec.template_nodes import TemplateError  # noqa: PLC0415

    record = container.record
    image_id = container.image_id
    data = {
        "ID": container.id[:_SHORT],
        "FullID": container.id,
        "Name": container.name,
        "ImageID": image_id.partition(":")[2][:_SHORT],
        "ImageFullID": image_id,
        "ImageName": container.image_reference,
        "Command": " ".join([record.get("Path", ""), *(record.get("Args") or ())]),
        "Hostname": lambda: record.get("Config", {}).get("Hostname", ""),
        "DaemonName": "ketch",
        "ContainerID": container.id,
        "ContainerName": f"/{container.name}",
        "ContainerImageID": image_id,
        "ContainerImageName": container.image_reference,
        "ContainerCreated": rfc3339(container.created_ns),
        "ContainerLabels": record.get("Config", {}).get("Labels") or {},
        "ContainerEnv": record.get("Config", {}).get("Env") or [],
        "ContainerArgs": record.get("Args") or [],
        "ContainerEntrypoint": record.get("Path", ""),
        "ExtraAttributes": dict,
    }
    try:
        return Template(template).execute(Struct(data, "Info"))
    except TemplateError as error:
        raise InvalidArgumentError(
            f"failed to initialize logging driver: template: log-tag: {error.message}"
        ) from error


def journal_fields(container: "Container", options: "Mapping[str, str]") -> dict[str, str]:
    """Returns what each of a container's entries in the journal says of it."""
    name = tag(container, options.get("tag", ""))
    fields = {
        "CONTAINER_ID": container.id[:_SHORT],
        "CONTAINER_ID_FULL": container.id,
        "CONTAINER_NAME": container.name,
        "CONTAINER_TAG": name,
        "IMAGE_NAME": container.image_reference,
        "SYSLOG_IDENTIFIER": name,
        "CONTAINER_LOG_EPOCH": f"{container.id}-{time.time_ns()}",
    }
    for key, value in attributes(container, options).items():
        fields[_field_name(key)] = value
    return fields


def _field_name(key: str) -> str:
    """Returns a label's name as the journal takes it: upper case, no leading underscore."""
    return "".join(c if c.isascii() and c.isalnum() else "_" for c in key.upper()).lstrip("_")
