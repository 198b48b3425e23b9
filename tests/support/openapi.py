"""Answers checked against the Docker Engine API's own description (OpenAPI 2), its facts."""

import json
import pathlib
from collections.abc import Iterator
from typing import Any

import jsonschema

DESCRIPTION = pathlib.Path(__file__).parents[1] / "reference/engine_api.json"


class Description:
    """The API's description, from its table."""

    def __init__(self) -> None:
        self._document: dict[str, Any] = json.loads(DESCRIPTION.read_bytes())

    def check(self, method: str, path: str, status: int, answer: object) -> None:
        """Check an answer; what is required, typed or enumerated otherwise is an error.

        Args:
            method: such as ``get``.
            path: as the description has it, with its places.
            status: the answer's.
            answer: its document.
        """
        responses = self._document["paths"][path][method]["responses"]
        if status >= 400:  # it does not list every error that dockerd has
            response = responses.get(str(status)) or {
                "schema": {"$ref": "#/definitions/ErrorResponse"}
            }
        else:
            response = responses[str(status)]
        schema = {**self._json_schema(response["schema"]),
                  "definitions": self._json_schema(self._document["definitions"])}  # fmt: skip
        jsonschema.validate(answer, schema, cls=jsonschema.Draft4Validator)

    def operations(self) -> "Iterator[tuple[str, str, dict[str, Any]]]":
        """Yield method, path and description of every request."""
        for path, methods in self._document["paths"].items():
            for method, operation in methods.items():
                yield method, path, operation

    def definition(self, reference: str) -> dict[str, Any]:
        """Return what a ``$ref`` refers to."""
        found: dict[str, Any] = self._document["definitions"][reference.rpartition("/")[2]]
        return found

    def check_request(self, method: str, target: str, status: int, answer: object) -> None:
        """Check an answer as ``check`` does, to a request for this path and query."""
        parts = target.partition("?")[0].split("/")
        for path, methods in sorted(self._document["paths"].items(), key=_places):
            places = path.split("/")
            if len(places) == len(parts) and method.lower() in methods and all(
                place == part or place.startswith("{")
                for place, part in zip(places, parts, strict=True)
            ):  # fmt: skip
                self.check(method.lower(), path, status, answer)
                return
        raise AssertionError(f"the description knows no {method} {target}")

    def _json_schema(self, part: Any) -> Any:
        """Turn a part into JSON Schema: null stands for what is missing, as in Go."""
        if isinstance(part, list):
            return [self._json_schema(item) for item in part]
        if not isinstance(part, dict):
            return part
        # What only documents, or says less than is true (a date of a container that never ran).
        made = {
            key: self._json_schema(value)
            for key, value in part.items()
            if key not in {"format", "example", "examples", "default", "discriminator"}
            or not isinstance(part.get("type", "object"), str)
        }
        if isinstance(made.get("type"), str):
            made["type"] = [made["type"], "null"]
        if isinstance(made.get("enum"), list):
            made["enum"] = [*made["enum"], None]
        if "$ref" in made:
            return {"anyOf": [{"$ref": made["$ref"]}, {"type": "null"}]}
        return made


def _places(item: tuple[str, object]) -> int:
    """Returns how many places a path has: those with fewer come first."""
    return item[0].count("{")
