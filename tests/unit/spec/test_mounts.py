import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ketch.errors import InvalidArgumentError, KetchError
from ketch.spec import mount_flag, mounts
from ketch.spec.container import Mount


def test_a_bind_makes_its_source_and_may_be_read_only() -> None:
    assert mounts.bind("/a/../b:/c") == {
        "Type": "bind",
        "Source": "/b",
        "Target": "/c",
        "ReadOnly": False,
        "BindOptions": {"CreateMountpoint": True},
    }
    mount = mounts.bind("/a:/c:ro,z,rslave")
    assert mount["ReadOnly"]
    assert mount["BindOptions"]["Propagation"] == "rslave"


def test_a_relative_source_is_the_callers() -> None:
    assert mounts.volume("./x:/y:ro", "/home/me") == "/home/me/x:/y:ro"
    assert mounts.volume(".:/y", "/home/me") == "/home/me:/y"
    assert mounts.volume("..:/y", "/home/me") == "/home:/y"
    assert mounts.volume("/x:/y", "/home/me") == "/x:/y"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "invalid empty volume spec"),
        ("/a:", "invalid spec: /a:: empty section between colons"),
        (":/c", "invalid spec: :/c: empty section between colons"),
        ("/x::ro", "invalid spec: /x::ro: empty section between colons"),
        ("/a:/b:/c:d", "invalid spec: /a:/b:/c:d: too many colons"),
        ("/a:ro", "invalid volume specification: '/a:ro'"),
        ("/a:/b:zz", "invalid mode: zz"),
        ("/a:/b:ro,rw", "invalid mode: ro,rw"),
        (
            "/a:b",
            "invalid volume specification: '/a:b': invalid mount config for type \"bind\": "
            "invalid mount path: 'b' mount path must be absolute",
        ),
        (
            "/a:/",
            "invalid volume specification: '/a:/': invalid mount config for type \"bind\": "
            "invalid specification: destination can't be '/'",
        ),
        (
            "/a:/b:nocopy",
            "invalid volume specification: '/a:/b:nocopy': invalid mount config for type "
            '"bind": field VolumeOptions must not be specified',
        ),
    ],
)
def test_malformed_volumes_have_dockers_words(text: str, message: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        mounts.bind(mounts.volume(text, "/"))
    assert caught.value.message == message


def test_a_name_is_a_volume() -> None:
    assert mounts.bind("data:/data") == {
        "Type": "volume", "Source": "data", "Target": "/data", "ReadOnly": False,
    }  # fmt: skip
    mount = mounts.bind("data:/data:ro,nocopy", "local")
    assert mount["ReadOnly"]
    assert mount["VolumeOptions"] == {"NoCopy": True, "DriverConfig": {"Name": "local"}}
    with pytest.raises(InvalidArgumentError, match="field BindOptions must not be specified"):
        mounts.bind("data:/data:shared")


def test_mounts_as_inspect_shows_them() -> None:
    points = mounts.of_container(
        {
            "Binds": ["/h:/h:ro", "data:/d", "more:/m:ro,nocopy"],
            "Mounts": [mount_flag.mount("type=volume,dst=/x,src=other")],
            "Tmpfs": {"/scratch": ""},
        },
        {"/h": {}, "/scratch": {}, "/own": {}},
    )
    shown = [
        (point["Type"], point.get("Name"), point["Destination"], point["Mode"], point["RW"])
        for point in points
    ]
    assert shown == [
        ("bind", None, "/h", "ro", False),
        ("volume", "data", "/d", "z", True),
        ("volume", "more", "/m", "ro,nocopy", False),
        ("volume", "other", "/x", "z", True),
        ("volume", "", "/own", "", True),
    ]


def test_mounts_of_another_container() -> None:
    (point,) = mounts.of_container({"Binds": ["data:/d"]})
    assert mounts.inherit(point, read_only=False)["RW"]
    inherited = mounts.inherit(point, read_only=True)
    assert not inherited["RW"]
    assert inherited["Spec"]["ReadOnly"]
    own = mounts.of_container({"Binds": ["/own:/d"]}, (), [inherited])
    assert [entry["Type"] for entry in own] == ["bind"]
    assert mounts.volumes_from("a:ro") == ("a", True)
    assert mounts.volumes_from("a") == ("a", False)
    for text, reason in (
        ("", "volumes-from specification cannot be an empty string"),
        ("a:foo", "invalid mode: foo"),
        ("a:rshared", "invalid mode: rshared"),
        ("a:nocopy", "invalid mode: nocopy"),
    ):
        with pytest.raises(InvalidArgumentError) as caught:
            mounts.volumes_from(text)
        assert caught.value.message == reason


@pytest.mark.parametrize(
    ("mount", "reason"),
    [
        (
            {"Type": "volume", "Target": "/x", "ReadOnly": True},
            "must not set ReadOnly mode when using anonymous volumes",
        ),
        (
            {"Type": "volume", "Source": "v", "Target": "/x", "VolumeOptions": {"Subpath": "../x"}},
            "subpath must be a relative path within the volume",
        ),
        (
            {"Type": "image", "Source": "i", "Target": "/x", "ImageOptions": {"Subpath": "/x"}},
            "subpath must be a relative path within the image",
        ),
        ({"Type": "image", "Target": "/x"}, "field Source must not be empty"),
        (
            {"Type": "bind", "Source": "/s", "Target": "/x", "VolumeOptions": {}},
            "field VolumeOptions must not be specified",
        ),
    ],
)
def test_what_does_not_fit_a_mounts_type(mount: Mount, reason: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        mounts.check(mount)
    assert caught.value.message == f'invalid mount config for type "{mount["Type"]}": {reason}'


def test_id_maps() -> None:
    mount = mount_flag.mount("type=bind,src=/s,dst=/x,idmap")
    assert mount["BindOptions"] == {"IdMap": "owner"}
    text = "uids=0-1000-1#@1-2000-9;gids=0-1000-1"
    mount = mount_flag.mount(f"type=volume,src=v,dst=/x,idmap={text}")
    assert mount["VolumeOptions"] == {"IdMap": text}
    assert mount_flag.id_map(text) == {
        "uids": [(0, 1000, 1, False), (1, 2000, 9, True)],
        "gids": [(0, 1000, 1, False)],
    }
    assert "BindOptions" not in mount_flag.mount("type=bind,src=/s,dst=/x,idmap=false")
    mount = mount_flag.mount("type=bind,src=/s,dst=/x,idmap=true")
    assert mount["BindOptions"] == {"IdMap": "owner"}
    assert mount_flag.id_map("uids=0-4294967294-1;gids=4294967294-0-1")
    for wrong in ("0-x-1", "0-0-0", "0-4294967295-1", "4294967295-0-1", "0-4294967294-2", "0-1_0-1",
                  "²-0-1", f"{'9' * 5000}-0-1", "-1-0-1", "0-0", "@@0-0-1", "@"):  # fmt: skip
        with pytest.raises(InvalidArgumentError, match="invalid value for idmap"):
            mount_flag.mount(f"type=bind,src=/s,dst=/x,idmap=uids={wrong};gids=0-0-1")
    with pytest.raises(InvalidArgumentError, match="cannot use 'idmap' with mount type 'tmpfs'"):
        mount_flag.mount("type=tmpfs,dst=/x,idmap")


def test_mount_of_each_type() -> None:
    assert mount_flag.mount(
        "type=bind,src=./a,dst=/x,readonly,bind-propagation=rslave", "/home"
    ) == {
        "Type": "bind",
        "Source": "/home/a",
        "Target": "/x",
        "ReadOnly": True,
        "BindOptions": {"Propagation": "rslave"},
    }
    assert mount_flag.mount("type=TMPFS,target=/x,tmpfs-size=1m,tmpfs-mode=01777") == {
        "Type": "tmpfs",
        "Target": "/x",
        "TmpfsOptions": {"SizeBytes": 1 << 20, "Mode": 0o1777},
    }
    assert mount_flag.mount('type=bind,"source=/a,b",destination=/x,ro=false')["Source"] == "/a,b"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "EOF"),
        ("foo", "invalid field 'foo' must be a key=value pair"),
        ("type=bind,src=/a,", "invalid field '' must be a key=value pair"),
        ("type=bind,src=/a", "target is required"),
        ("type=,dst=/x", "type is required"),
        ("type=bind,dst=/x,foo=bar", "unexpected key 'foo' in 'foo=bar'"),
        ("type=bind,dst=/x,bind-foo=bar", "unexpected key 'bind-foo' in 'bind-foo=bar'"),
        ("type=bind,dst=/x,readonly=x", "invalid value for readonly: x"),
        ("type=tmpfs,dst=/x,tmpfs-mode=999", "invalid value for tmpfs-mode: 999"),
        ("type=tmpfs,dst=/x,tmpfs-size=zz", "invalid value for tmpfs-size: zz"),
        (
            "type=bind,src=/a,dst=/x,tmpfs-size=1m",
            "cannot mix 'tmpfs-*' options with mount type 'bind'",
        ),
        (
            "type=bind,src=/a,dst=/x,volume-nocopy",
            "cannot mix 'volume-*' options with mount type 'bind'",
        ),
        (
            "type=bind,src=/a,dst=/x,bind-recursive=foo",
            "invalid value for bind-recursive: foo "
            '(must be "enabled", "disabled", "writable", or "readonly")',
        ),
        (
            "type=bind,src=/a,dst=/x,bind-recursive=readonly",
            "option 'bind-recursive=readonly' requires 'readonly' to be specified in conjunction",
        ),
        (
            "type=bind,src=/a,dst=/x,bind-recursive=readonly,readonly",
            "option 'bind-recursive=readonly' requires 'bind-propagation=rprivate' "
            "to be specified in conjunction",
        ),
    ],
)
def test_malformed_mounts_have_dockers_words(text: str, message: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        mount_flag.mount(text)
    assert caught.value.message == message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("type=bind,dst=/x", "field Source must not be empty"),
        ("type=bind,src=nope,dst=/x", "invalid mount path: 'nope' mount path must be absolute"),
        ("type=bind,src=/a,dst=x", "invalid mount path: 'x' mount path must be absolute"),
        ("type=bind,src=/a,dst=/", "invalid specification: destination can't be '/'"),
        ("type=bind,src=/a,dst=/x/..", "invalid specification: destination can't be '/'"),
        ("type=tmpfs,src=/a,dst=/x", "field Source must not be specified"),
        ("type=foo,dst=/x", "mount type unknown"),
        ("type=bind,src=/a,dst=/x,bind-propagation=foo", "invalid propagation mode: foo"),
    ],
)
def test_impossible_mounts_have_dockers_words(text: str, message: str) -> None:
    mount = mount_flag.mount(text)
    with pytest.raises(InvalidArgumentError) as caught:
        mounts.check(mount)
    assert caught.value.message == (f'invalid mount config for type "{mount["Type"]}": {message}')


def test_tmpfs_options_merge_with_the_defaults() -> None:
    defaults = ["noexec", "nosuid", "nodev", "rprivate"]
    assert mounts.tmpfs_options("") == defaults
    assert mounts.tmpfs_options("size=5m,exec") == [
        "nosuid", "nodev", "rprivate", "size=5m", "exec",
    ]  # fmt: skip
    assert mounts.tmpfs_options("rw,mode=1777,ro") == [*defaults, "mode=1777", "ro"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("bar", 'invalid tmpfs option ["bar"]'),
        ("ro,foo=1", 'invalid tmpfs option ["foo" "1"]'),
        ("size", 'invalid tmpfs option ["size"]'),
        ("size=", 'invalid tmpfs option ["size" ""]'),
    ],
)
def test_unknown_tmpfs_options(options: str, message: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        mounts.tmpfs_options(options)
    assert caught.value.message == message


def test_parents_are_mounted_before_children_whatever_the_order_given() -> None:
    found = mounts.of_container(
        {
            "Binds": ["/1:/a/b/c", "/2:/a"],
            "Tmpfs": {"/a/b": ""},
            "Mounts": [mount_flag.mount("type=tmpfs,dst=/b")],
        }
    )
    # What --tmpfs asks for is put in its place when the configuration is built.
    assert [point["Destination"] for point in found] == ["/a", "/b", "/a/b/c"]


def test_two_mounts_cannot_have_one_target() -> None:
    with pytest.raises(InvalidArgumentError, match="Duplicate mount point: /c"):
        mounts.of_container({"Binds": ["/b:/c", "/d:/x/../c"]})
    with pytest.raises(InvalidArgumentError, match="Duplicate mount point: /c"):
        mounts.of_container({"Binds": ["/b:/c"], "Tmpfs": {"/c": ""}})


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("foo", "invalid mount path: 'foo' mount path must be absolute"),
        ("/", "invalid specification: destination can't be '/'"),
    ],
)
def test_tmpfs_targets(path: str, message: str) -> None:
    with pytest.raises(InvalidArgumentError) as caught:
        mounts.of_container({"Tmpfs": {path: ""}})
    assert caught.value.message == message


@given(st.text(alphabet="/ab.:,rowzZ", max_size=20))
def test_any_volume_is_understood_or_refused(text: str) -> None:
    with contextlib.suppress(KetchError):
        mount = mounts.bind(mounts.volume(text, "/cwd"))
        assert mount["Type"] == "volume" or mount["Source"].startswith("/")
        assert mount["Target"].startswith("/")


@given(st.text(alphabet='typebindmfs,=/"xro-', max_size=30))
def test_any_mount_is_understood_or_refused(text: str) -> None:
    with contextlib.suppress(KetchError):
        mounts.check(mount_flag.mount(text, "/cwd"))
