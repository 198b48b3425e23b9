"""A tree of files that something is copied from, bound or read: wherever it came from.

Contexts, repositories, downloads, images and stages all look the same to whoever copies: a
descriptor of a root that nothing leads out of, and what of it is not to be seen.
"""

from typing import Protocol

from ketch.dataclass import dataclass


class Hidden(Protocol):
    """Tells what of a tree is left out, as ``.dockerignore`` has it.

    Paths are relative to the root, without ``.``, ``..`` or a slash at either end; bytes that are
    no UTF-8 are surrogates, as ``os.fsdecode`` has them. The root itself is never hidden.
    """

    def hides(self, path: str) -> bool:
        """Whether what is at a path is left out, by its own name or by a directory's above it.

        A directory that is hidden is still there where something below it is not.
        """

    def may_show_below(self, path: str) -> bool:
        """Whether anything below a hidden directory may be there all the same.

        It need not be entered otherwise: that is what keeps ``node_modules`` from being read.
        """


@dataclass(frozen=True)
class Tree:
    """Files.

    Attributes:
        directory: descriptor of the root, for reading. It is whoever's that gave the tree, and
            holds as long as that does. Whoever reads resolves beneath it, with the root as root
            (``linux/beneath.py``): what is there may be hostile, and change meanwhile.
        hidden: what is not to be seen, None for nothing.
        identity: what the content of all files follows from, where that is known without reading
            them (``git:`` and a commit, ``http:`` and a digest); else empty.
        owned: whether the files' owners mean anything to an image. Those of this machine's
            directories do not: what is copied from there is 0:0's, as it is when a client of
            BuildKit's sends it; what comes from a stage or an archive stays its owner's.
        time_s: since when it is as it is, in seconds since 1970, as a commit, a server or an
            archive tells it; None where nothing does.
    """

    directory: int
    hidden: Hidden | None = None
    identity: str = ""
    owned: bool = True
    time_s: int | None = None
