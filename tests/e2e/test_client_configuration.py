"""What a person has written down for docker's command holds for ketch's as well."""

import json
import os
import pathlib
import subprocess

import pytest

from tests.support.commands import Engine, finish

PROXIES = {
    "default": {"httpProxy": "http://proxy:3128", "noProxy": "*.local", "ftpProxy": ""},
    "unix:///elsewhere": {"httpsProxy": "http://other"},
}


def configured(engine: Engine, directory: pathlib.Path, **settings: object) -> Engine:
    """The engine's command, with docker's configuration as somebody has it."""
    (directory / "config.json").write_text(json.dumps(settings))
    return Engine(
        engine.name, engine.prefix, {**engine.environment, "DOCKER_CONFIG": str(directory)}
    )


def test_containers_are_told_of_proxies(engine: Engine, tmp_path: pathlib.Path) -> None:
    told = configured(engine, tmp_path, proxies=PROXIES)
    given = ("-e", "http_proxy=own", "-e", "NO_PROXY")
    script = "env | grep -i _proxy | sort"
    assert told.ok("run", "--rm", *given, "busybox", "sh", "-c", script).splitlines() == [
        "HTTP_PROXY=http://proxy:3128", "http_proxy=own", "no_proxy=*.local",
    ]  # fmt: skip


def test_lists_have_the_form_that_is_written_down(
    engine: Engine, run_name: str, tmp_path: pathlib.Path
) -> None:
    told = configured(
        engine, tmp_path, psFormat="<{{.Names}}>", imagesFormat="[{{.Repository}}]",
        networksFormat="({{.Name}})", volumesFormat="{{.Driver}}!",
    )  # fmt: skip
    identity = engine.ok("create", "--name", run_name, "-v", "/data", "busybox", "true")
    assert told.ok("ps", "-a") == f"<{run_name}>"
    assert told.ok("ps", "-aq", "--no-trunc") == identity
    assert told.ok("ps", "-a", "--format", "{{.Image}}") == "busybox"
    assert "[busybox]" in told.ok("images").splitlines()
    assert "(bridge)" in told.ok("network", "ls").splitlines()
    assert told.ok("volume", "ls") == "local!"
    assert "local" not in told.ok("volume", "ls", "-q")
    engine.ok("rm", "-v", run_name)


@pytest.mark.ketch_only("docker takes the keys from the file as well, but later")
def test_the_keys_that_detach_are_those_that_are_written_down(
    ketch: Engine, run_name: str, tmp_path: pathlib.Path
) -> None:
    told = configured(ketch, tmp_path, DETACHKEYS="ctrl-x,x")  # Go takes names in any case
    child = told.terminal("run", "-it", "--name", run_name, "busybox", "sh")
    child.expect("# ")
    child.send("\x18x")
    assert finish(child) == 0
    assert ketch.ok("inspect", "-f", "{{.State.Running}}", run_name) == "true"
    ketch.ok("rm", "-f", run_name)
    refused = configured(ketch, tmp_path, detachKeys="ctrl-xx")("run", "--rm", "busybox", "true")
    assert refused.status == 125
    assert "invalid detach keys (ctrl-xx)" in refused.err


@pytest.mark.parametrize(
    "content",
    ['{"psFormat": 5}', '{"psFormat":', '["psFormat"]', "\0", "{broken", '{"proxies": 5}',
     '{"proxies": {"default": {"httpProxy": 5}}}'],
)  # fmt: skip
def test_a_file_that_makes_no_sense_stops_nothing(
    engine: Engine, tmp_path: pathlib.Path, content: str
) -> None:
    told = configured(engine, tmp_path)
    path = tmp_path / "config.json"
    path.write_text(content)
    warning = f"WARNING: Error parsing config file ({path}): "
    for words in (("ps",), ("run", "--rm", "busybox", "true")):
        result = told(*words)
        assert result.status == 0
        assert result.err.count("WARNING") == 1
        assert result.err.startswith(warning)


def test_a_file_that_says_nothing_warns_of_nothing(engine: Engine, tmp_path: pathlib.Path) -> None:
    told = configured(engine, tmp_path)
    for content in ("", "null", '{"auths": {"registry.example": null}, "proxies": null}'):
        (tmp_path / "config.json").write_text(content)
        assert told("ps", "-q").err == ""


@pytest.mark.ketch_only("looks at what Python loads")
def test_json_is_not_loaded_for_the_file(ketch: Engine, tmp_path: pathlib.Path) -> None:
    told = configured(ketch, tmp_path, proxies=PROXIES, psFormat="{{.ID}}")
    done = subprocess.run(
        [*told.prefix, "run", "--rm", "busybox", "true"], check=True, capture_output=True,
        env={**os.environ, **told.environment, "PYTHONPROFILEIMPORTTIME": "1"},
    )  # fmt: skip
    assert b" ketch.cli.client_configuration\n" in done.stderr
    assert b" json\n" not in done.stderr
