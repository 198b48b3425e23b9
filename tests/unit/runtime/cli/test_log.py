import json
import pathlib
import re

import pytest

from ketch.errors import InvalidArgumentError
from ketch.runtime.cli.log import Log


def test_json_is_what_callers_parse(
    tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "log.json"
    log = Log(str(path), "json")
    log.warning("first")
    log.failure('no "x"\n', "make one")
    first, second = map(json.loads, path.read_text(encoding="utf-8").splitlines())
    assert (first["level"], first["msg"]) == ("warning", "first")
    assert second["level"] == "error"
    assert second["msg"] == 'no "x"\n'
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(Z|[+-]\d\d:\d\d)", second["time"])
    # As runc does: the user sees it too.
    assert capfd.readouterr().err == 'no "x"\n\n'


def test_text_is_logruss(tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]) -> None:
    Log().failure("container does not exist")
    err = capfd.readouterr().err
    assert re.fullmatch(r'time="[^"]+" level=error msg="container does not exist"\n', err)


def test_a_log_is_appended_to(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "log"
    for word in ("one", "two"):
        Log(str(path)).warning(word)
    assert [line.rpartition(" ")[2] for line in path.read_text().splitlines()] == [
        "msg=one",
        "msg=two",
    ]


def test_debug_messages_only_where_asked_for(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "log"
    Log(str(path)).debug("no")
    Log(str(path), debug=True).debug("yes")
    assert "msg=yes" in path.read_text()
    assert "msg=no" not in path.read_text()


def test_an_unknown_form() -> None:
    with pytest.raises(InvalidArgumentError, match="invalid log-format: xml"):
        Log("", "xml")
