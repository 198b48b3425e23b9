"""What ``--explain`` tells of a build's steps, and how a person takes them by hand.

Loaded where somebody asks. By hand a step's files are made in a directory of the working directory
that is named by the layer's chain ID: what is below is mounted on ``root`` in it with ``upper`` to
write to, and what is copied is put together in ``files`` first. A layer that an image is to have is
archived from there, ``image/step-....tar``.
"""

import os
from typing import TYPE_CHECKING

from ketch.build import copying
from ketch.build.files import unpacking, users
from ketch.build.files.walking import Event
from ketch.build.graph import (
    ContextSource,
    Copy,
    HttpSource,
    InlineSource,
    MakeDirectory,
    Mount,
    MountKind,
    Network,
    Run,
)
from ketch.build.request import LocalDirectory
from ketch.build.states import State
from ketch.build.steps.running import HOSTNAME
from ketch.engine.images import telling
from ketch.spec import capabilities
from ketch.spec import image as documents
from ketch.spec.digest import split
from ketch.spec.told import Told, quote

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Mapping, Sequence

    from ketch.build.files.selection import Selection, Source
    from ketch.build.graph import CopyItem, Vertex
    from ketch.build.outputs.result import Built
    from ketch.build.states import Layer
    from ketch.build.trees import Tree
    from ketch.engine.images.images import Images

_LISTED_MAX = 1000
_DEVICES = "null zero full random urandom tty"


class _NoCommandError(Exception):
    """No command does a step, or none that can be told."""


class Steps:
    """Tells the steps of one build.

    Args:
        images: the store.
        contexts: where the build's contexts are.
        result: gives what a vertex has come to.
        tree: gives its files.
        network: what the build reaches.
    """

    def __init__(
        self,
        images: "Images",
        contexts: "Mapping[str, object]",
        result: "Callable[[Vertex], State | Tree]",
        tree: "Callable[[Vertex], Tree]",
        network: str,
    ) -> None:
        self._images = images
        self._contexts = contexts
        self._result = result
        self._tree = tree
        self._network = network
        self._made: set[str] = set()

    def of_layer(self, vertex: "Vertex", base: State, layer: "Layer", *, exported: bool) -> Told:
        """A step was taken, and what it wrote is a layer.

        Args:
            vertex: the step.
            base: what it was taken on.
            layer: the layer.
            exported: whether an image is to have it.
        """
        place = self._images.snapshotter.path(layer.chain_id)
        values: list[tuple[str, object]] = [
            ("diff-id", layer.diff_id), ("chain-id", layer.chain_id),
            ("files-bytes", layer.size_bytes), ("directory", f"{place}/diff"),
        ]  # fmt: skip
        name = _name(layer.chain_id)
        try:
            by_hand = [*self._taking(vertex, State() if layer.alone else base, name)]
        except _NoCommandError as reason:
            values.append(("no-command", str(reason)))
            by_hand = []
        else:
            self._made.add(layer.chain_id)
            if exported:
                by_hand += telling.committing_by_hand(f"{name}/upper", name)
        words = f"make a layer of what was written by: {layer.description}"
        return Told("image", words, values, outside=by_hand)

    def of_image(self, built: "Built", names: "Sequence[str]") -> Told:
        """A configuration and a manifest are written for the layers."""
        archives: list[telling.Archive] = []
        for number, layer in enumerate(built.layers, 1):
            if layer.chain_id in self._made:
                archives.append((f"{_name(layer.chain_id)}.tar", None, layer.diff_id))
            else:
                archives.append((f"layer-{number}.tar", layer.descriptor, layer.diff_id))
        return telling.of_documents(
            self._images, documents.encode(built.document), archives, names[0] if names else ""
        )

    # A step's files

    def _taking(self, vertex: "Vertex", base: State, name: str) -> "Iterator[str]":
        lower = self._lower(base)
        yield f"mkdir -p {name}/upper {name}/work {name}/root"
        if lower:
            options = f"lowerdir={':'.join(lower)},upperdir={name}/upper,workdir={name}/work"
            yield f"mount -t overlay overlay -o {quote(options)} {name}/root"
        else:
            yield f"mount --bind {name}/upper {name}/root"
        if isinstance(vertex, Copy):
            yield from self._copying(vertex, name)
        elif isinstance(vertex, MakeDirectory):
            yield from self._making_directory(vertex, name)
        elif isinstance(vertex, Run):
            yield from self._running(vertex, name)
        yield f"umount {name}/root"
        if isinstance(vertex, Run):
            yield from (
                f"(cd {name}/upper && {{ [ -s .{one} ] || rm -f .{one} 2> /dev/null; }};"
                f" rmdir -p --ignore-fail-on-non-empty .{one} 2> /dev/null) || true"
                for one in (quote(mount.target) for mount in vertex.mounts)
            )

    def _lower(self, base: State) -> list[str]:
        """The trees of some layers, topmost first."""
        return [
            f"{_name(one)}/upper"
            if one in self._made
            else f"{self._images.snapshotter.path(one)}/diff"
            for one in reversed(base.chain_ids)
        ]

    def _making_directory(self, vertex: MakeDirectory, name: str) -> "Iterator[str]":
        target = f"{name}/root{vertex.path}"
        yield _guard(target, name)
        yield f"mkdir -p {quote(target)}"
        if vertex.owner:
            yield f"chown {self._owner(vertex.base, vertex.owner)} {quote(target)}"

    def _copying(self, vertex: Copy, name: str) -> "Iterator[str]":
        files, ending = f"{name}/files", list[str]()
        target = vertex.target
        chosen = copying.choose(vertex, self._tree, lambda: None)
        sources = [source for selection in chosen.selections for source in selection.sources]
        yield _guard(f"{name}/root{target}", name)
        yield f"to={quote(files + target)}"
        if len(sources) == 1 and not sources[0].is_directory and not _unpacks(vertex):
            if not target.endswith("/"):
                into = f"[ -d {quote(f'{name}/root{target}')} ]"
                yield f'if ! {into}; then mkdir -p "${{to%/*}}"; else mkdir -p "$to"; fi'
                yield f"if {into}; then to=$to/{quote(sources[0].name)}; fi"
                to = '"$to"'
            else:
                yield 'mkdir -p "$to"'
                to = f'"$to"/{quote(sources[0].name)}'
        else:
            yield 'mkdir -p "$to"'
            to = ""
        owned = True
        for number, (selection, item) in enumerate(
            zip(chosen.selections, vertex.items, strict=True), 1
        ):
            owned &= selection.tree.owned
            yield from self._collecting(selection, item, to, f"{name}/from-{number}", ending)
        if vertex.owner or not owned:
            owner = self._owner(vertex.base, vertex.owner) if vertex.owner else "0:0"
            yield f"chown -Rh {owner} {files}"
        if vertex.mode:
            yield f"chmod -R {quote(vertex.mode)} {to or chr(34) + '$to' + chr(34) + '/*'}"
        if vertex.time_s is not None:
            yield f"find {files} -exec touch -hd @{vertex.time_s} {{}} +"
        yield (
            f"tar -C {files} --numeric-owner -cf - . | tar -C {name}/root --numeric-owner"
            " --keep-directory-symlink --no-overwrite-dir -xpf -"
        )
        yield from ending

    def _collecting(
        self, selection: "Selection", item: "CopyItem", to: str, view: str, ending: list[str]
    ) -> "Iterator[str]":
        """Bring together what one item of a COPY or ADD means: in ``$to``, or as ``to``."""
        vertex = item.source
        if isinstance(vertex, InlineSource):
            for path in item.paths:
                content = _text(vertex.files[path])
                yield f"printf %s {quote(content)} > {to or _in(path)}"
            return
        if isinstance(vertex, HttpSource):
            to = to or _in(selection.sources[0].name)
            yield f"curl -fsSL -o {to} {quote(vertex.url)} && chmod 600 {to}"
            if vertex.checksum:
                algorithm, digits = split(vertex.checksum)
                yield f'test "$({algorithm}sum < {to})" = "{digits}  -"'
            return
        root = yield from self._root_of(vertex, view, ending)
        for source in selection.sources:
            path = "/".join([root, *source.names])
            if source.is_directory:
                yield from _directory(selection, source, path)
            elif unpacking.unpacks(item):
                plain = quote(path)
                yield (
                    f'if tar -tf {plain} > /dev/null 2>&1; then tar -C "$to" -xpf {plain};'
                    f" else cp -a {plain} {_in(source.name)}; fi"
                )
            else:
                yield f"cp -a {quote(path)} {to or _in(source.name)}"

    def _root_of(
        self, vertex: "Vertex", view: str, ending: list[str]
    ) -> "Generator[str, None, str]":
        """Have a vertex's files somewhere, to be read; returns where."""
        if isinstance(vertex, ContextSource):
            context = self._contexts.get(vertex.context)
            if not isinstance(context, LocalDirectory):
                raise _NoCommandError(f"its context, {vertex.context}, is no directory here")
            return os.path.abspath(context.path)
        found = self._result(vertex)
        if not isinstance(found, State):
            raise _NoCommandError(f"what it copies is from {vertex.name}")
        lower = self._lower(found)
        yield f"mkdir -p {view}"
        if len(lower) == 1:
            yield f"mount --bind -o ro {quote(lower[0])} {view}"
        elif lower:
            options = quote(f"ro,lowerdir={':'.join(lower)}")
            yield f"mount -t overlay overlay -o {options} {view}"
        if lower:
            ending.append(f"umount {view}")
        return view

    def _owner(self, base: "Vertex", specification: str) -> str:
        uid, gid = users.owner(self._tree(base).directory, specification)
        return f"{uid}:{gid}"

    # A step's program

    def _running(self, vertex: Run, name: str) -> "Iterator[str]":
        if vertex.insecure or vertex.devices:
            raise _NoCommandError("it has privileges or devices")
        root = f"{name}/root"
        network = vertex.network if vertex.network != Network.DEFAULT else self._network
        mounts: list[str] = []
        for number, mount in enumerate(vertex.mounts, 1):
            mounts += self._mounting(mount, root, f"{name}/from-{number}")
        if network == Network.DEFAULT or not network:
            yield "# it has this host's network, where ketch gives it one of its own"
        apart = " --net" if network == Network.NONE else ""
        inside = [*self._inside(vertex, root, mounts)]
        end = "STEP"
        while end in "\n".join(inside).split("\n"):  # an argument may have such a line
            end += "_"
        yield f"(unshare --mount --uts --ipc --pid{apart} --fork --kill-child sh -eu) <<'{end}'"
        yield from inside
        yield end

    def _inside(self, vertex: Run, root: str, mounts: "Sequence[str]") -> "Iterator[str]":
        """What a step's program finds around it, made in its namespaces."""
        yield f"hostname {quote(vertex.hostname or HOSTNAME)}"
        yield f"mkdir -p {root}/proc {root}/dev {root}/etc"
        yield f"mount -t proc proc {root}/proc"
        yield f"mount -t tmpfs -o mode=755 tmpfs {root}/dev"
        yield f"for device in {_DEVICES}; do"
        yield f": > {root}/dev/$device; mount --bind /dev/$device {root}/dev/$device"
        yield "done"
        yield f"[ -e {root}/etc/resolv.conf ] || : > {root}/etc/resolv.conf"
        yield f"mount --bind /etc/resolv.conf {root}/etc/resolv.conf"
        if vertex.files:
            yield f"mkdir {root}/dev/pipes"
        for path, content in vertex.files.items():
            yield f"printf %s {quote(_text(content))} > {root}/dev/pipes/{quote(path)}"
        yield from mounts
        yield from _becoming(vertex, root)

    def _mounting(self, mount: Mount, root: str, view: str) -> "Iterator[str]":
        """Mount what a step asks for; it goes with the namespace that the step is in."""
        target = f"{root}{mount.target}"
        plain = quote(target)
        if mount.kind == MountKind.TMPFS:
            yield f"mkdir -p {plain} && mount -t tmpfs tmpfs {plain}"
        elif mount.kind == MountKind.CACHE and mount.source is None:
            cache = quote(f"cache-{mount.id.replace('/', '-')}")
            yield f"mkdir -p {cache} {plain} && mount --bind {cache} {plain}"
        elif mount.kind == MountKind.BIND and mount.source is not None and mount.read_only:
            source = yield from self._root_of(mount.source, view, [])
            plain_source = quote(f"{source}{mount.source_path}")
            yield (
                f"if [ -d {plain_source} ]; then mkdir -p {plain};"
                f" else mkdir -p {quote(os.path.dirname(target))} && : > {plain}; fi"
            )
            yield f"mount --bind -o ro {plain_source} {plain}"
        else:
            raise _NoCommandError(f"it has a mount of kind {mount.kind}")


_ROOTS = frozenset({"", "0", "root", "0:0", "root:root"})


def _becoming(vertex: Run, root: str) -> "Iterator[str]":
    """Become a step's program."""
    variables = [*vertex.environment, *vertex.hidden]
    if not any(one.startswith("HOME=") for one in variables) and vertex.user in _ROOTS:
        variables.append("HOME=/root")
    kept = ",".join(
        f"+{name.removeprefix('CAP_').lower()}"
        for name in capabilities.to_names(capabilities.DEFAULT)
    )
    words = ["--groups=0", f"--bounding-set=-all,{kept}", '"$(command -v unshare)"']
    words += [f"--root={root}", f"--wd={quote(vertex.directory)}"]
    user, _, group = vertex.user.partition(":")
    if vertex.user not in _ROOTS:
        yield _looking_up("uid", user, 3, f"{root}/etc/passwd", 3)
        if group:
            yield _looking_up("gid", group, 3, f"{root}/etc/group", 3)
        else:
            yield _looking_up("gid", user, 3, f"{root}/etc/passwd", 4, otherwise="0")
        words.append('--setgid="$gid" --setuid="$uid"')
    program = " ".join(map(quote, vertex.arguments))
    environment = " ".join(map(quote, variables))
    # The program is looked for by its own PATH, what leads there by this shell's.
    yield (
        f'exec env -i {environment} "$(command -v setpriv)" {" ".join(words)} {program} < /dev/null'
    )


def _looking_up(
    variable: str, name: str, number: int, path: str, wanted: int, *, otherwise: str = ""
) -> str:
    found = f"$1 == name || ${number} == name {{ print ${wanted}; exit }}"
    ending = otherwise or quote(name)
    return (
        f"{variable}=$(awk -F: -v name={quote(name)} {quote(found)} {path})"
        f" && {variable}=${{{variable}:-{ending}}}"
    )


def _directory(selection: "Selection", source: "Source", path: str) -> "Iterator[str]":
    """Copy a directory's contents: all of them, or what is not left out."""
    if source.sight is None:
        yield f'cp -a {quote(path)}/. "$to"/'
        return
    names: list[str] = []
    above: list[str] = []
    for entry in selection.entries(source):
        if entry.event == Event.LEAVE:
            del above[-1:]
            continue
        if entry.name:
            names.append("/".join([*above, entry.name]))
        if entry.event == Event.ENTER and entry.name:
            above.append(entry.name)
        if len(names) > _LISTED_MAX:
            raise _NoCommandError("it copies more than is told, and leaves something out")
    if names:
        listed = " ".join(quote(f"./{name}") for name in names)
        yield f'tar -C {quote(path)} --no-recursion -cf - {listed} | tar -C "$to" -xpf -'


def _in(name: str) -> str:
    return f'"$to"/{quote(name)}'


def _unpacks(vertex: Copy) -> bool:
    return any(
        unpacking.unpacks(item) and not isinstance(item.source, (HttpSource, InlineSource))
        for item in vertex.items
    )


def _guard(target: str, name: str) -> str:
    """Nothing that an image has leads out of it."""
    return (
        f'case $(realpath -m {quote(target)})/ in "$(pwd -P)/{name}/root/"*) ;;'
        f" *) echo a symlink leads out of {name}/root >&2; exit 1 ;; esac"
    )


def _name(chain_id: str) -> str:
    return f"step-{split(chain_id)[1][:12]}"


def _text(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise _NoCommandError("its here-documents are no text") from error
