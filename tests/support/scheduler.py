"""How pytest-xdist's workers get their tests: by file, and some when all others have ended."""

from typing import TYPE_CHECKING, Any

from xdist.scheduler import LoadFileScheduling

from tests.support import distribution

if TYPE_CHECKING:
    import pytest

_LAST = ""


class Files(LoadFileScheduling):  # type: ignore[misc]
    """Files in the order in which they were collected, then what needs the machine for itself.

    A file is one worker's, so that what it makes for a module is made once. A worker begins a test
    only when it knows what comes next, or that nothing does. So when all files are given out, the
    first worker keeps its last test until the others have ended, and their fixtures with them.

    Args:
        config: the controller's.
        log: where xdist says what it does.
    """

    def __init__(self, config: "pytest.Config", log: Any = None) -> None:
        super().__init__(config, log)
        config.option.loadscopereorder = False

    def remove_node(self, node: Any) -> Any:
        """Forget a worker that has ended; what waited for that begins."""
        crashed = super().remove_node(node)
        if self.workqueue and len(self.nodes) == 1:
            self._reschedule(self.nodes[0])
        return crashed

    def _split_scope(self, nodeid: str) -> str:
        """Name the share of work that a test is part of."""
        return _LAST if distribution.is_alone(nodeid) else nodeid.split("::", 1)[0]

    def _assign_work_unit(self, node: Any) -> None:
        if _LAST in self.workqueue:
            self.workqueue.move_to_end(_LAST)  # behind what a worker that died has left
        if next(iter(self.workqueue)) != _LAST or len(self.nodes) == 1:
            super()._assign_work_unit(node)

    def _reschedule(self, node: Any) -> None:
        if list(self.workqueue) == [_LAST] and len(self.nodes) > 1:
            if node is not self.nodes[0]:
                node.shutdown()
            return
        super()._reschedule(node)
