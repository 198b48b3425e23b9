import base64
import contextlib
import json
import os
import pathlib
import pwd
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.errors import InvalidArgumentError, UnavailableError
from ketch.images.registry import credentials
from ketch.images.registry.credentials import CredentialFile, Credentials

HELPER = """#!/bin/sh
# keeps each registry's credentials in a file; speaks docker-credential-helpers' protocol
d=$(dirname "$0")/kept; mkdir -p "$d"
case $1 in
    store) input=$(cat); key=$(printf %s "$input" | sed 's/.*"ServerURL": "\\([^"]*\\)".*/\\1/')
           printf %s "$input" >"$d/$(printf %s "$key" | tr / _)" ;;
    get) f=$d/$(cat | tr / _); [ -e "$f" ] && cat "$f" && exit
         echo "credentials not found in native keychain"; exit 1 ;;
    erase) rm "$d/$(cat | tr / _)" ;;
esac
"""


@pytest.fixture
def environment(tmp_path: pathlib.Path) -> dict[str, str]:
    return {"DOCKER_CONFIG": str(tmp_path / "docker"), "PATH": f"{tmp_path}/bin:/usr/bin:/bin"}


def write(environment: dict[str, str], document: object) -> None:
    path = pathlib.Path(environment["DOCKER_CONFIG"], "config.json")
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(document))


def install_helper(environment: dict[str, str], name: str, text: str = HELPER) -> None:
    path = pathlib.Path(environment["PATH"].partition(":")[0], f"docker-credential-{name}")
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def test_nothing_is_known_without_a_file(environment: dict[str, str]) -> None:
    assert not CredentialFile(environment).get("r:5000")


@pytest.mark.parametrize("key", ["r:5000", "https://r:5000", "http://r:5000/v2/", "r:5000/v1/"])
def test_what_other_tools_wrote_is_found(environment: dict[str, str], key: str) -> None:
    write(environment, {"auths": {key: {"auth": encoded("me:pass:word")}}})
    found = CredentialFile(environment).get("r:5000")
    assert (found.user, found.password) == ("me", "pass:word")
    assert not CredentialFile(environment).get("r:5001")


def test_without_home_the_accounts_directory_counts() -> None:
    account = pwd.getpwuid(os.getuid())
    assert CredentialFile({}).path == f"{account.pw_dir}/.docker/config.json"
    assert CredentialFile({"HOME": "/h"}).path == "/h/.docker/config.json"
    assert CredentialFile({"HOME": "/h", "DOCKER_CONFIG": "/d"}).path == "/d/config.json"


def test_docker_hub_has_a_key_of_its_own(environment: dict[str, str]) -> None:
    write(environment, {"auths": {credentials.HUB_KEY: {"identitytoken": "t"}}})
    for host in ("docker.io", "registry-1.docker.io", "index.docker.io"):
        assert CredentialFile(environment).get(host).identity_token == "t"


def test_set_get_and_erase_leave_the_rest_of_the_file(environment: dict[str, str]) -> None:
    write(environment, {"psFormat": "x", "auths": {"other": {"auth": encoded("a:b")}}})
    kept_in_helper = CredentialFile(environment).set("r:5000", Credentials("me", "secret"))
    assert not kept_in_helper
    path = pathlib.Path(environment["DOCKER_CONFIG"], "config.json")
    assert json.loads(path.read_text()) == {
        "psFormat": "x",
        "auths": {"other": {"auth": encoded("a:b")}, "r:5000": {"auth": encoded("me:secret")}},
    }
    assert CredentialFile(environment).get("r:5000").password == "secret"
    assert CredentialFile(environment).erase("r:5000")
    assert not CredentialFile(environment).erase("r:5000")
    assert json.loads(path.read_text())["auths"] == {"other": {"auth": encoded("a:b")}}
    assert os.listdir(path.parent) == ["config.json"]


def test_with_an_identity_token_no_password_is_kept(environment: dict[str, str]) -> None:
    CredentialFile(environment).set("r", Credentials("me", "secret", identity_token="token"))
    found = CredentialFile(environment).get("r")
    assert (found.user, found.password, found.identity_token) == ("me", "", "token")


def test_the_file_is_its_owners_and_a_symlink_stays(environment: dict[str, str]) -> None:
    directory = pathlib.Path(environment["DOCKER_CONFIG"])
    real = directory.parent / "real.json"
    directory.mkdir()
    (directory / "config.json").symlink_to(real)
    CredentialFile(environment).set("r", Credentials("me", "secret"))
    assert (directory / "config.json").is_symlink()
    assert stat.S_IMODE(real.stat().st_mode) == 0o600


@pytest.mark.parametrize("key", ["credsStore", "credHelpers"])
def test_a_helper_keeps_what_it_is_to_keep(environment: dict[str, str], key: str) -> None:
    install_helper(environment, "x")
    write(
        environment, {"credsStore": "x"} if key == "credsStore" else {"credHelpers": {"r:1": "x"}}
    )
    assert not CredentialFile(environment).get("r:1")
    assert CredentialFile(environment).set("r:1", Credentials("me", "secret"))
    path = pathlib.Path(environment["DOCKER_CONFIG"], "config.json")
    assert json.loads(path.read_text())["auths"] == {"r:1": {}}
    assert "secret" not in path.read_text()
    assert CredentialFile(environment).get("r:1").password == "secret"
    assert CredentialFile(environment).erase("r:1")
    assert not CredentialFile(environment).get("r:1")
    assert not CredentialFile(environment).erase("r:1")


def test_a_helpers_identity_token(environment: dict[str, str]) -> None:
    install_helper(environment, "x")
    write(environment, {"credsStore": "x"})
    CredentialFile(environment).set("r", Credentials("me", "", identity_token="token"))
    assert CredentialFile(environment).get("r").identity_token == "token"


def test_the_usual_helper_is_chosen_for_a_new_file(environment: dict[str, str]) -> None:
    install_helper(environment, "secretservice")
    environment["PATH"] = environment["PATH"].partition(":")[0] + ":/bin:/usr/bin"
    assert CredentialFile(environment).set("r", Credentials("me", "secret"))
    path = pathlib.Path(environment["DOCKER_CONFIG"], "config.json")
    assert json.loads(path.read_text())["credsStore"] == "secretservice"


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("#!/bin/sh\necho broken >&2; exit 1\n", "broken"),
        ("#!/bin/sh\necho '[]'\n", "no credentials"),
        ('#!/bin/sh\necho \'{"Username": 1, "Secret": 2}\'\n', "no credentials"),
        ("", "executable file not found"),
    ],
)
def test_a_helper_that_fails_is_named(
    environment: dict[str, str], script: str, message: str
) -> None:
    if script:
        install_helper(environment, "x", script)
    write(environment, {"credsStore": "x"})
    with pytest.raises(UnavailableError, match=message) as caught:
        CredentialFile(environment).get("r")
    assert "docker-credential-x" in str(caught.value)


@pytest.mark.parametrize(
    "document",
    [
        [], {"auths": ["r"]}, {"auths": {"r": 1}}, {"auths": {"r": {"auth": "%"}}},
        {"auths": {"r": {"auth": encoded("nocolon")}}}, {"auths": {"r": {"auth": 5}}},
        {"credsStore": "../x"}, {"credsStore": 5}, {"credHelpers": ["x"]},
    ],
)  # fmt: skip
def test_a_damaged_file_is_named(environment: dict[str, str], document: object) -> None:
    write(environment, document)
    with pytest.raises(InvalidArgumentError, match=r"config\.json"):
        CredentialFile(environment).get("r")


@pytest.mark.parametrize("key", ["username", "password", "identitytoken", "registrytoken"])
def test_half_a_character_is_refused_before_it_is_sent(tmp_path: pathlib.Path, key: str) -> None:
    # JSON can name it, and neither UTF-8 nor a form can hold it.
    content = json.dumps({"auths": {"r": {key: "a\ud800"}}})
    (tmp_path / "config.json").write_text(content, encoding="ascii")
    with pytest.raises(InvalidArgumentError, match=f"{key} is no Unicode text"):
        CredentialFile({"DOCKER_CONFIG": str(tmp_path)}).get("r")


@given(st.binary(max_size=300))
def test_any_content_is_read_or_refused(content: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        pathlib.Path(directory, "config.json").write_bytes(content)
        with contextlib.suppress(InvalidArgumentError):
            CredentialFile({"DOCKER_CONFIG": directory}).get("r")


@given(
    st.text(st.characters(exclude_characters=":\0", exclude_categories=["Cs"]), min_size=1),
    st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1),
)
def test_what_is_set_is_got(user: str, password: str) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        CredentialFile({"DOCKER_CONFIG": directory}).set("r", Credentials(user, password))
        found = CredentialFile({"DOCKER_CONFIG": directory}).get("r")
        assert (found.user, found.password) == (user, password)


def test_secrets_do_not_show() -> None:
    assert "hush" not in repr(Credentials("me", "hush", "hush", "hush"))
