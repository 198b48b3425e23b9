"""A stranger's JSON, as Go's decoder understands it."""

from typing import Any

import pytest

from ketch.api.documents import conform
from ketch.api.encoding import parse
from ketch.api.transfer import credentials
from ketch.errors import InvalidArgumentError
from ketch.spec import container


def read(text: str, wanted: Any = container.Creation) -> Any:
    return conform(parse(text.encode()), wanted)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('{"image": "a"}', {"Image": "a"}),
        ('{"IMAGE": "a", "nobody": 1}', {"Image": "a"}),
        ('{"Image": "a", "image": "b"}', {"Image": "b"}),
        ('{"image": "b", "Image": "a", "image": "c"}', {"Image": "c"}),
        ('{"Image": "a", "image": null}', {"Image": "a"}),
        ('{"wor\\u212aingdir": "/a", "\\u017fhell": ["x"]}', {"WorkingDir": "/a", "Shell": ["x"]}),
        ('{"Imag\\u0435": "a", "\\u0130mage": "b"}', {}),
        ('{"cmd": "one"}', {"Cmd": ["one"]}),
        ('{"labels": {"A": "1", "a": "2"}}', {"Labels": {"A": "1", "a": "2"}}),
        ('{"HostConfig": {"memory": 1}, "hostconfig": {"CPUSHARES": 2}}',
         {"HostConfig": {"Memory": 1, "CpuShares": 2}}),
        ('{"HostConfig": {"Memory": 1}, "HostConfig": {"CpuShares": 3, "Init": true}}',
         {"HostConfig": {"Memory": 1, "CpuShares": 3, "Init": True}}),
        ('{"hostconfig": {"mounts": [{"type": "bind", "bindoptions": {"nonrecursive": true}}]}}',
         {"HostConfig": {"Mounts": [{"Type": "bind", "BindOptions": {"NonRecursive": True}}]}}),
        ('{"HostConfig": {"CpuShares": 5.0, "PortBindings": {"80/tcp": null}}}',
         {"HostConfig": {"CpuShares": 5, "PortBindings": {"80/tcp": []}}}),
    ],
)  # fmt: skip
def test_documents(text: str, expected: object) -> None:
    assert read(text) == expected


def test_a_command_is_a_text_only_where_a_container_is_made() -> None:
    assert conform({"cmd": "one"}, container.Config) == {"Cmd": ["one"]}
    with pytest.raises(InvalidArgumentError, match="string into field Cmd of type list"):
        conform({"cmd": "one"}, container.ExecConfig)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"image": 3}', "cannot unmarshal number into field Image of type string"),
        ('{"hostconfig": {"Memory": "1g"}}', "string into field HostConfig.Memory of type int64"),
        ('{"HostConfig": {"Memory": 1e30}}', "number into field HostConfig.Memory of type int64"),
        ('{"HostConfig": {"Memory": 9223372036854775808}}', "HostConfig.Memory of type int64"),
        ('{"HostConfig": {"Memory": true}}', "bool into field HostConfig.Memory of type int64"),
        ('{"Tty": 1}', "number into field Tty of type bool"),
        ('{"Env": {"a": "b"}}', "object into field Env of type list"),
        ('{"Labels": ["a"]}', "array into field Labels of type map"),
        ('{"HostConfig": []}', "array into field HostConfig of type HostConfig"),
        ("[1]", "array into field body of type Creation"),
        ('{"Image": "a\\u0000"}', "NUL"),
    ],
)
def test_what_has_another_type(text: str, words: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        read(text)
    assert words in caught.value.message


def test_least_and_largest_numbers() -> None:
    for number in (-(1 << 63), (1 << 63) - 1):
        assert read(f'{{"HostConfig": {{"Memory": {number}}}}}')["HostConfig"]["Memory"] == number


@pytest.mark.parametrize(
    ("header", "user"),
    [
        ("eyJ1c2VybmFtZSI6Im1lIiwicGFzc3dvcmQiOiJ4In0=", "me"),
        ("eyJVc2VyTmFtZSI6Im1lIn0=", "me"),  # in another case
        ("eyJhdXRoIjoiYldVNmVBPT0ifQ", "me"),  # {"auth": base64 of me:x}, without padding
        ("", ""), ("empty", ""), ("bnVsbA==", ""), ("W10=", ""), ("e30=", ""), ("!", ""),
        ("eyJ1c2VybmFtZSI6M30=", ""), ("eyJhdXRoIjoiIyJ9", ""),
    ],
)  # fmt: skip
def test_credentials(header: str, user: str) -> None:
    assert credentials(header).user == user
