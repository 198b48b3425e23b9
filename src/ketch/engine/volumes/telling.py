"""What ``--explain`` tells of volumes, and how they are made by hand."""

import os

from ketch.spec.told import Told, quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ketch.engine.volumes.records import Volume


def of_record(volume: "Volume") -> Told:
    """A new volume's record."""
    values = [("name", volume.name), ("driver", "local")]
    values += [(f"option.{name}", value) for name, value in sorted(volume.options.items())]
    values += [(f"label.{name}", value) for name, value in sorted(volume.labels.items())]
    return Told("record", f"record the volume {volume.name}", values)


def of_directory(volume: "Volume") -> Told:
    """The directory of a volume's data."""
    path = quote(volume.mountpoint)
    values = [("mountpoint", volume.mountpoint)]
    if volume.options:
        values.append(("mounted-while-used", " ".join(_mount(volume))))
    words = f"make the directory of volume {volume.name} · mkdir(2)"
    by_hand = [f"mkdir -p {path}", f"chmod 755 {path}"]
    return Told("files", words, values, outside=by_hand)


def of_filling(volume: "Volume", destination: str, image: str) -> Told:
    """A new volume gets what the image has where it is mounted."""
    values = [("from", f"{destination} of {image}"), ("to", volume.mountpoint)]
    return Told("files", f"fill volume {volume.name} · copy_file_range(2)", values)


def of_mounting(volume: "Volume") -> Told:
    """What a volume's options name is mounted."""
    values = [(f"option.{name}", value) for name, value in sorted(volume.options.items())]
    words = f"mount volume {volume.name} on {volume.mountpoint} · fsopen(2), move_mount(2)"
    return Told("files", words, values, outside=[" ".join(map(quote, _mount(volume)))])


def of_unmounting(volume: "Volume") -> Told:
    """Nobody uses a volume with options any more."""
    words = f"unmount volume {volume.name} from {volume.mountpoint} · umount2(2)"
    return Told("files", words, outside=[f"umount {quote(volume.mountpoint)}"])


def of_removal(volume: "Volume") -> Told:
    """A volume goes, with its data."""
    directory = os.path.dirname(volume.mountpoint)
    values = [("name", volume.name), ("data", volume.mountpoint)]
    words = f"remove volume {volume.name} and its data · unlinkat(2)"
    return Told("record", words, values, outside=[f"rm -r {quote(directory)}"])


def _mount(volume: "Volume") -> list[str]:
    options = volume.options
    words = ["mount", "-t", options["type"]]
    if options.get("o"):
        words += ["-o", options["o"]]
    return [*words, options["device"], volume.mountpoint]
