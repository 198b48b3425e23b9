"""What a registry's refusal means: its status and its error document, as one of ketch's errors.

Source: OCI distribution specification, "Error Codes".
"""

import json
from http.client import responses

from ketch.errors import (
    KetchError,
    NotFoundError,
    PermissionDeniedError,
    RegistryError,
    UnauthenticatedError,
    UnavailableError,
)

_TEXT_LENGTH_MAX = 500


def reason(content: bytes) -> str:
    """Returns what an error document says, as ``code: message``; empty where it is none."""
    try:
        document = json.loads(content)
    except (ValueError, RecursionError):
        return ""
    if not isinstance(document, dict):
        return ""
    errors = document.get("errors")
    if isinstance(errors, list):
        said = [_one(error) for error in errors[:5] if isinstance(error, dict)]
        return _shown(", ".join(text for text in said if text))
    for key in ("details", "message", "error_description", "error"):
        if isinstance(document.get(key), str):
            return _shown(document[key])
    return ""


def error(status: int, content: bytes, what: str) -> KetchError:
    """Returns the error that an answer stands for.

    Args:
        status: its HTTP status.
        content: its body.
        what: what was asked for, such as ``manifest for busybox:latest``.
    """
    said = reason(content)
    if status == 401:
        return UnauthenticatedError(unauthorized(said or "authentication required"))
    if status == 403:
        return PermissionDeniedError(said or "denied: requested access to the resource is denied")
    if status == 404:
        return NotFoundError(f"{what} not found: {said or 'the registry does not have it'}")
    if status == 429:
        return UnavailableError(
            said or "toomanyrequests: the registry has had too many requests",
            "wait a while, or log in: many registries allow known users more",
        )
    name = responses.get(status, "")
    message = f"{what}: received unexpected HTTP status: {status} {name}".rstrip()
    message += f": {said}" if said else ""
    return (UnavailableError if status >= 500 else RegistryError)(message)


def unauthorized(said: str) -> str:
    """Returns what is said of a refusal, with Docker's word for it before it, once."""
    return said if said.startswith("unauthorized") else f"unauthorized: {said}"


def _one(entry: "dict[str, object]") -> str:
    code, message = entry.get("code"), entry.get("message")
    code = code.lower().replace("_", " ") if isinstance(code, str) else ""
    message = message if isinstance(message, str) else ""
    return f"{code}: {message}" if code and message else code or message


def _shown(text: str) -> str:
    """Keep a stranger's text to one line of bounded length."""
    line = " ".join(text.split())
    return line if len(line) <= _TEXT_LENGTH_MAX else line[:_TEXT_LENGTH_MAX] + "..."
