"""Contexts of builds, opened as a build opens them."""

import contextlib
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from ketch.build.contexts.contexts import Contexts
from ketch.build.request import Input, Request

Opened = Callable[..., Contexts]


@contextlib.contextmanager
def opener(directory: pathlib.Path) -> Iterator[Opened]:
    """Give a function that opens the contexts of one more build, each until the block ends.

    Args:
        directory: for the builds' places, and what is kept between them.
    """
    with contextlib.ExitStack() as scope:
        count = 0

        def opened(main: Input | None = None, **given: Any) -> Contexts:
            nonlocal count
            count += 1
            place = directory / f"place-{count}"
            place.mkdir(mode=0o700)
            options = {"patience": given.pop("patience")} if "patience" in given else {}
            contexts: Mapping[str, Input] = given.pop("contexts", {})
            main_one = {"context": main} if main else {}
            asked = Request(contexts={**main_one, **contexts}, **given)
            cache = str(directory / "cache")
            return scope.enter_context(Contexts(asked, str(place), cache, **options))

        yield opened


def listed(directory: int) -> list[str]:
    """Return what is in a directory."""
    return sorted(os.listdir(directory))


def content(directory: int, path: str) -> bytes:
    """Return a file's content."""
    with open(
        path, "rb", opener=lambda name, flags: os.open(name, flags, dir_fd=directory)
    ) as file:
        return file.read()
