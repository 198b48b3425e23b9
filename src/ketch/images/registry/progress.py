"""What somebody who waits for a transfer is told."""


class Progress:
    """A listener that is told everything and says nothing: the base of those who show it.

    Its methods are called from several threads.
    """

    __slots__ = ()

    def begin(self, identifier: str, text: str) -> None:
        """Take what is beginning now, which stays as it is.

        Args:
            identifier: what it is about, such as a tag.
            text: in Docker's words, such as ``Pulling from library/busybox``.
        """
        self.say(identifier, text)

    def say(self, identifier: str, status: str) -> None:
        """Take a new state of something, or a line of text.

        Args:
            identifier: what it is about, such as a layer's short ID; empty for a line by itself.
            status: in Docker's words, such as ``Pull complete``.
        """

    def advance(self, identifier: str, action: str, current_bytes: int, total_bytes: int) -> None:
        """Take how far something is.

        Args:
            identifier: what it is about.
            action: in Docker's words, such as ``Downloading``.
            current_bytes: how much is done.
            total_bytes: how much there is.
        """
