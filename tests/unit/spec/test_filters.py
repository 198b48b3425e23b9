"""Filters as Docker understands them."""

import pytest

from ketch.errors import InvalidArgumentError
from ketch.spec import filters
from ketch.spec.filters import Filters


def made(*pairs: str) -> Filters:
    return Filters([filters.pair(text) for text in pairs], ("name", "label", "exited", "status"))


def test_pairs() -> None:
    assert filters.pair(" Name = x=y ") == "name=x=y"
    with pytest.raises(InvalidArgumentError, match="bad format of filter"):
        filters.pair("name")


def test_an_empty_one_filters_nothing() -> None:
    assert made("", "name=x").values("name") == ["x"]


def test_an_unknown_name() -> None:
    with pytest.raises(InvalidArgumentError, match=r"^invalid filter 'nope'$"):
        made("nope=1")


def test_a_name_alone_filters_nothing_and_is_known() -> None:
    assert Filters(["name"], ["name"]).values("name") == []
    with pytest.raises(InvalidArgumentError, match=r"^invalid filter 'nope'$"):
        Filters(["nope"], ["name"])


def test_without_filters_everything_fits() -> None:
    none = made()
    assert none.exact("name", "x")
    assert none.pattern("name", "x")
    assert none.labels("label", {})
    assert none.numbers("exited") == []


def test_values_of_one_name_are_alternatives() -> None:
    chosen = made("status=running", "status=paused")
    assert chosen.exact("status", "paused")
    assert not chosen.exact("status", "exited")


@pytest.mark.parametrize(
    ("pattern", "fits"),
    [
        ("web", True),
        ("eb", True),
        ("^web$", False),
        ("^/web-1$", True),
        ("web-[12]", True),
        ("[", False),
    ],
)
def test_patterns(pattern: str, fits: bool) -> None:
    assert made(f"name={pattern}").pattern("name", "web-1", "/web-1") == fits


@pytest.mark.parametrize(
    ("wanted", "fits"),
    [
        (["label=a"], True), (["label=a=1"], True), (["label=a=2"], False), (["label=c"], False),
        (["label=a", "label=b"], True), (["label=a", "label=c"], False), (["label=b="], True),
    ],
)  # fmt: skip
def test_labels(wanted: list[str], fits: bool) -> None:
    assert made(*wanted).labels("label", {"a": "1", "b": ""}) == fits


def test_numbers() -> None:
    assert made("exited=0", "exited=137").numbers("exited") == [0, 137]
    with pytest.raises(InvalidArgumentError, match="invalid filter 'exited=x'"):
        made("exited=x").numbers("exited")
