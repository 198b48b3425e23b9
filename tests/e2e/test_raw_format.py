"""``--format raw``, the lists' form from before there were templates."""

import re

from tests.support.commands import Engine


def test_lists_are_raw_as_dockers(engine: Engine) -> None:
    engine.ok("create", "--name", "raw", "-l", "a=b", "busybox", "sleep", "100")
    engine.ok("volume", "create", "raw")
    shown = engine.ok("ps", "-a", "-s", "--filter", "name=raw", "--format", "raw")
    assert re.fullmatch(
        r"container_id: \w{12}\nimage: busybox\ncommand: \"sleep 100\"\ncreated_at: \S+ .*\n"
        r"state: created\nstatus: Created\nnames: raw\nlabels: a=b\nports:\nsize: 0B.*\n",
        shown,
    )
    quiet = engine.ok("ps", "-aq", "--filter", "name=raw", "--format", "raw")
    assert re.fullmatch(r"container_id: \w{12}", quiet)
    assert engine.ok("volume", "ls", "--filter", "name=raw", "--format", "raw") == (
        "name: raw\ndriver: local\n"
    )
    network = engine.ok("network", "ls", "--filter", "name=bridge", "--format", "raw")
    assert re.fullmatch(
        r"network_id: \w{12}\nname: bridge\ndriver: bridge\nscope: local\n", network
    )
    image = engine.ok("images", "--format", "raw", "busybox")
    assert re.match(r"repository: busybox\ntag: latest\nimage_id: \w{12}\ncreated_at: ", image)
    assert engine.ok("images", "-q", "--format", "raw", "busybox").startswith("image_id: ")
    used = engine.ok("system", "df", "--format", "raw")
    assert used.startswith("type: Images\ntotal: ")
    engine.ok("rm", "raw")
    engine.ok("volume", "rm", "raw")
