import os
import pathlib

from ketch.images import lock


def test_adders_share_and_a_deleter_waits_for_nobody(tmp_path: pathlib.Path) -> None:
    root = str(tmp_path / "not made yet")
    with lock.shared(root), lock.shared(root), lock.exclusive(root) as alone:
        assert not alone
    with lock.exclusive(root) as alone:
        assert alone
        with lock.exclusive(root) as second:
            assert not second


def test_a_dead_process_holds_nothing(tmp_path: pathlib.Path) -> None:
    child = os.fork()
    if not child:
        with lock.shared(str(tmp_path)):
            os.kill(os.getpid(), 9)
    os.waitpid(child, 0)
    with lock.exclusive(str(tmp_path)) as alone:
        assert alone
