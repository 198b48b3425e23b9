"""What ``build``'s options with several fields mean: ``type=local,dest=path``.

Fields are comma-separated values of CSV, as Go reads them, so that a field may hold a comma when it
stands in double quotes. Sources: docker/buildx, util/buildflags; moby/buildkit, docs.
"""

import re
from collections.abc import Iterable, Mapping

from ketch.dataclass import dataclass, field
from ketch.errors import InvalidArgumentError
from ketch.spec import values

OUTPUT_TYPES = ("cacheonly", "docker", "image", "local", "oci", "registry", "tar")
CACHE_TYPES = ("inline", "local", "registry")
_OTHER_CACHES = {"gha", "s3", "azblob"}
_ANNOTATED = {"index", "index-descriptor", "manifest", "manifest-descriptor"}
_ANNOTATION = re.compile(r"([a-z-]+)(?:\[([A-Za-z0-9_/-]+)\])?")


@dataclass(frozen=True)
class Fields:
    """What an option says.

    Attributes:
        type: its ``type``.
        attributes: everything else, with names in small letters.
    """

    type: str
    attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class SecretSource:
    """Where a secret comes from (``--secret``).

    Attributes:
        id: what RUN calls it.
        path: a file, or empty.
        variable: an environment variable, or empty; where neither is said, a variable of its id
            is taken where there is one, else a file.
    """

    id: str
    path: str = ""
    variable: str = ""


@dataclass(frozen=True)
class AgentSource:
    """Where an ssh agent comes from (``--ssh``).

    Attributes:
        id: what RUN calls it.
        paths: of one socket, or of private keys; none for the caller's agent.
    """

    id: str
    paths: tuple[str, ...] = ()


def output(text: str) -> Fields:
    """Read ``--output``: a directory, ``-`` for an archive, or fields.

    Raises:
        InvalidArgumentError: it is malformed, or there is no such type.
    """
    given = _values(text)
    if given == [text] and not text.startswith("type="):
        return Fields("tar", {"dest": "-"}) if text == "-" else Fields("local", {"dest": text})
    found = _fields(given)
    kind = found.pop("type", "")
    if not kind:
        raise InvalidArgumentError("type is required for output")
    if kind not in OUTPUT_TYPES:
        raise InvalidArgumentError(
            f"unknown output type {kind!r}", f"types: {', '.join(OUTPUT_TYPES)}"
        )
    return Fields(kind, found)


def cache(text: str, *, exports: bool) -> Fields:
    """Read ``--cache-from`` or ``--cache-to``: an image's name, or fields.

    Args:
        text: what was given.
        exports: whether it is written to.

    Raises:
        InvalidArgumentError: it is malformed, or there is no such type.
    """
    given = _values(text)
    if all("=" not in value for value in given):
        if len(given) > 1:
            raise InvalidArgumentError(f"invalid value {given[0]}", "fields are name=value")
        return Fields("registry", {"ref": text})
    found = _fields(given)
    kind = found.pop("type", "")
    if not kind:
        raise InvalidArgumentError(f"type required form> {text!r}")
    if kind in _OTHER_CACHES:
        raise InvalidArgumentError(
            f"caches of the type {kind} are not supported", f"types: {', '.join(CACHE_TYPES)}"
        )
    if kind not in CACHE_TYPES or (kind == "inline" and not exports):
        raise InvalidArgumentError(
            f"unknown cache type {kind!r}", f"types: {', '.join(CACHE_TYPES)}"
        )
    needed = {"registry": "ref", "local": "dest" if exports else "src"}.get(kind)
    if needed and not found.get(needed):
        raise InvalidArgumentError(f"a cache of the type {kind} needs {needed}=")
    return Fields(kind, found)


def secret(text: str) -> SecretSource:
    """Read ``--secret``: ``id=name[,src=path][,env=VARIABLE][,type=file|env]``.

    Raises:
        InvalidArgumentError: it is malformed.
    """
    kind = name = path = variable = ""
    for key, value in _pairs(_values(text)):
        match key:
            case "type":
                if value not in {"file", "env"}:
                    raise InvalidArgumentError(f"unsupported secret type {value!r}")
                kind = value
            case "id":
                name = value
            case "source" | "src":
                path = value
            case "env":
                variable = value
            case _:
                raise InvalidArgumentError(f"unexpected key '{key}' in '{key}={value}'")
    if not name:
        raise InvalidArgumentError("a secret needs an id", "--secret id=name,src=path")
    if kind == "env" and not variable:
        path, variable = "", path or name
    return SecretSource(name, path, variable)


def agent(text: str) -> AgentSource:
    """Read ``--ssh``: ``default``, or ``id[=socket|key[,key...]]``.

    Raises:
        InvalidArgumentError: it names nothing.
    """
    name, _, rest = text.partition("=")
    if not name:
        raise InvalidArgumentError("an ssh agent needs an id", "--ssh default")
    return AgentSource(name, tuple(path for path in rest.split(",") if path))


def build_context(text: str) -> tuple[str, str]:
    """Read ``--build-context``: ``name=value``.

    Returns:
        The name and what stands for it.

    Raises:
        InvalidArgumentError: a part is missing.
    """
    name, _, value = text.partition("=")
    if not name or not value:
        raise InvalidArgumentError(f"invalid context value: {text}, expected key=value")
    return name, value


def attestations(attest: Iterable[str], provenance: str, sbom: str) -> tuple[str, str]:
    """Read ``--attest``, ``--provenance`` and ``--sbom``.

    Args:
        attest: values of ``--attest``.
        provenance: that of ``--provenance``, empty for none given.
        sbom: that of ``--sbom``.

    Returns:
        The provenance's mode (``min``, ``max``, or empty for none) and the image of the scanner
        for an SBOM (or empty).

    Raises:
        InvalidArgumentError: it is malformed; or an SBOM is wanted and no scanner named.
    """
    wanted = [_fields(_values(text)) for text in attest]
    if provenance:
        wanted.append({"type": "provenance", **_shorthand(provenance)})
    if sbom:
        wanted.append({"type": "sbom", **_shorthand(sbom)})
    mode = scanner = ""
    for found in wanted:
        disabled = is_true(found.get("disabled", ""))
        match found.get("type"):
            case "provenance":
                mode = "" if disabled else found.get("mode", "min")
                if mode not in {"", "min", "max"}:
                    raise InvalidArgumentError(
                        f"invalid provenance mode {mode!r}", "modes: min, max"
                    )
            case "sbom":
                scanner = "" if disabled else found.get("generator", "")
                if not disabled and not scanner:
                    raise InvalidArgumentError(
                        "an SBOM is made by a scanner, and none is named",
                        "--sbom generator=IMAGE",
                    )
            case kind:
                raise InvalidArgumentError(
                    f"unknown attestation type {kind or ''!r}", "types: provenance, sbom"
                )
    return mode, scanner


def annotations(given: Iterable[str]) -> dict[str, str]:
    """Read ``--annotation``: ``[type[,type][[platform]]:]key=value``.

    Returns:
        Values by ``type[platform]:key``, as ``Request.annotations`` has them; ``manifest`` is
        meant where no type is named.

    Raises:
        InvalidArgumentError: one is malformed.
    """
    found = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals:
            raise InvalidArgumentError(f"invalid annotation {text!r}, expected key=value")
        types, colon, name = key.partition(":")
        if not colon:
            types, name = "manifest", key
        for kind in types.split(","):
            match = _ANNOTATION.fullmatch(kind)
            if match is None:
                raise InvalidArgumentError(
                    f"invalid annotation type {kind!r}, expected type and optional platform in"
                    " square brackets"
                )
            if match[1] not in _ANNOTATED:
                raise InvalidArgumentError(f"unknown annotation type {match[1]!r}")
            found[f"{kind}:{name}"] = value
    return found


def is_true(text: str) -> bool:
    """Returns what a field's yes or no means, as Go reads it; nothing is no.

    Raises:
        InvalidArgumentError: it is neither.
    """
    try:
        return bool(text) and values.boolean(text)
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"invalid boolean value {text!r}") from error


def _shorthand(text: str) -> dict[str, str]:
    """What ``--provenance=false``, ``=true`` or ``=mode=max`` says."""
    try:
        return {} if is_true(text) else {"disabled": "true"}
    except InvalidArgumentError:
        return _fields(_values(text))


def _values(text: str) -> list[str]:
    try:
        return values.fields(text) if text else []
    except InvalidArgumentError as error:
        raise InvalidArgumentError(f"invalid value {text!r}: {error.message}") from error


def _pairs(given: Iterable[str]) -> list[tuple[str, str]]:
    found = []
    for value in given:
        key, equals, rest = value.partition("=")
        if not equals:
            raise InvalidArgumentError(f"invalid value {value}", "fields are name=value")
        found.append((key.strip().lower(), rest))
    return found


def _fields(given: Iterable[str]) -> dict[str, str]:
    return dict(_pairs(given))
