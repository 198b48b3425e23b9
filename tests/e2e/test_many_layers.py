"""As many layers as overlayfs can stack, and one more."""

from tests.support import images
from tests.support.archives import archive, member
from tests.support.commands import Engine
from tests.support.registry import fake

COUNT = 500  # Linux, fs/overlayfs/params.h: OVL_MAX_STACK


def test_five_hundred_layers_are_pulled_and_run_and_no_more_are_made(ketch: Engine) -> None:
    layers = [images.busybox_archive().read_bytes()]
    for number in range(1, COUNT):
        # Every other layer hides what the one below it brought.
        hidden = [member(b".wh.f%d" % (number - 1))] if number % 2 else []
        layers.append(archive(member(b"f%d" % number, data=b"%d\n" % number), *hidden))
    with fake() as registry:
        name = f"{registry.host}/many:1"
        registry.add_image("many", "1", *layers, compress=bytes, suffix="")
        ketch.ok("pull", "-q", name, timeout=120)
    command = "cat /f499 /f1; ls / | grep -c ^f; echo >/new"
    seen = ketch.ok("run", "--network", "none", "--name", "many", name, "sh", "-c", command)
    assert seen.split() == ["499", "1", "250"]
    assert ketch.ok("diff", "many") == "A /new"
    refused = ketch("commit", "many")
    assert (refused.status, refused.out) == (1, "")
    assert "max depth exceeded" in refused.err
    ketch.ok("rm", "many")
    assert name in ketch.ok("rmi", name, timeout=60)
