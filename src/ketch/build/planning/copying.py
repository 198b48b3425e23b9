"""COPY and ADD: what is copied from where, to where, and as whose.

Source: github.com/moby/buildkit, frontend/dockerfile/dockerfile2llb/convert_copy.go.
"""

import posixpath
from collections.abc import Iterator

from ketch.build.graph import Copy, CopyItem, GitSource, HttpSource, InlineSource, Vertex
from ketch.build.planning import paths, platforms
from ketch.build.planning.setting import Setting, Turn
from ketch.spec import digest as digests
from ketch.spec import git_urls, modes
from ketch.spec.dockerfile.errors import DockerfileError
from ketch.spec.dockerfile.instructions import Add, Content, Transfer
from ketch.spec.dockerfile.instructions import Copy as CopyInstruction
from ketch.spec.git_urls import GitUrl
from ketch.spec.path_match import has_wildcards
from ketch.spec.values import quoted

_UNNAMED = "__unnamed__"


def copy(turn: Turn, this: Transfer) -> None:
    """Adds the vertex of a COPY or an ADD, and its line of history.

    Raises:
        DockerfileError: it asks for what it cannot have.
    """
    setting, state = turn.setting, turn.state
    source = turn.command.sources[0] if turn.command.sources else None
    files = setting.main
    if source is not None:
        if source.state is None:
            raise DockerfileError(
                f"cannot copy from stage {quoted(_source_stage(this))}, it needs to be defined "
                f"before current stage {quoted(turn.stage.label)}"
            )
        files = source.state.root
    name = turn.named(setting.expanded_name(this.text, state.environment))
    if isinstance(this, Add):
        _check_checksum(this)
    if this.mode:
        modes.parse(this.mode)
    items = [*_items(setting, this, files, name), *_contents(setting, this)]
    state.root = setting.vertices.one(
        Copy(
            name=name,
            stage=turn.stage.label,
            place=this.place,
            platform=platforms.shown(state.platform),
            ignore_cache=turn.stage.ignore_cache,
            base=state.root,
            items=tuple(items),
            target=paths.target(state.directory, this.destination),
            owner=this.owner,
            mode=this.mode,
            parents=_with_parents(this),
            exclude=this.excluded,
            # As in BuildKit, whose layers on their own know no modes.
            link=this.link and not this.mode,
            time_s=setting.epoch_s,
        )
    )
    state.steps.add(f"{_recorded(this)} # buildkit", state.root)


def _source_stage(this: Transfer) -> str:
    return this.source_stage if isinstance(this, CopyInstruction) else ""


def _with_parents(this: Transfer) -> bool:
    return isinstance(this, CopyInstruction) and this.parents


def _recorded(this: Transfer) -> str:
    words = [this.name]
    if _with_parents(this):
        words.append("--parents")
    if this.owner:
        words.append(f"--chown={this.owner}")
    if this.mode:
        words.append(f"--chmod={this.mode}")
    words += this.sources
    words += (f"<<{content.name}" for content in this.contents)
    return " ".join([*words, this.destination])


def _check_checksum(this: Add) -> None:
    if not this.checksum:
        return
    if len(this.sources) != 1 or this.contents:
        raise DockerfileError("checksum can't be specified for multiple sources")
    if not _is_http(this.sources[0]) and _repository(this, this.sources[0]) is None:
        raise DockerfileError("checksum requires HTTP(S) or Git sources")


def _items(setting: Setting, this: Transfer, files: Vertex, name: str) -> Iterator[CopyItem]:
    for path in this.sources:
        if not isinstance(this, Add):
            if _repository(this, path) is not None:
                raise DockerfileError("source can't be a git ref for COPY", "ADD can take it")
            if _is_http(path):
                raise DockerfileError("source can't be a URL for COPY", "ADD can take it")
            yield _local(this, files, path)
            continue
        source = remote(this, path, name)
        if isinstance(source, GitSource):
            yield CopyItem(setting.vertices.one(source), ("/",))
        elif isinstance(source, HttpSource):
            yield CopyItem(setting.vertices.one(source), (source.filename,), bool(this.unpack))
        else:
            yield _local(this, files, path)


def remote(this: Add, path: str, name: str) -> GitSource | HttpSource | None:
    """Returns what an ADD fetches, None for a path of the context.

    Args:
        this: the instruction, expanded.
        path: one of its sources.
        name: what people are shown.

    Raises:
        DockerfileError: it contradicts itself, or its checksum is malformed.
    """
    repository = _repository(this, path)
    if repository is not None:
        return _git(this, path, repository, name)
    return _http(this, path, name) if _is_http(path) else None


def _local(this: Transfer, files: Vertex, path: str) -> CopyItem:
    unpack = isinstance(this, Add) and this.unpack is not False
    cleaned = paths.rooted(path)
    if _with_parents(this):
        # What stands before the pivot is not made in the target.
        before, pivot, after = path.partition("/./")
        if pivot:
            cleaned = f"{paths.rooted(before).rstrip('/')}/.{paths.rooted(after)}"
    return CopyItem(files, (cleaned,), unpack, required=not has_wildcards(path))


def _contents(setting: Setting, this: Transfer) -> Iterator[CopyItem]:
    for content in this.contents:
        source = setting.vertices.one(_inline(content))
        yield CopyItem(source, (content.name,))


def _inline(content: Content) -> InlineSource:
    if "/" in content.name or content.name in {".", ".."}:
        raise DockerfileError(f"invalid name of a heredoc: {quoted(content.name)}")
    return InlineSource(
        name="[internal] preparing inline document",
        files={content.name: content.text.encode(errors="surrogateescape")},
    )


def _repository(this: Transfer, path: str) -> GitUrl | None:
    """Returns the repository that a source is, None where it is none."""
    known = isinstance(this, Add) and this.keep_git_dir is not None
    found = git_urls.parse(path, known=known)
    return None if found is None or found.like_a_path else found


def _is_http(path: str) -> bool:
    return path.startswith(("http://", "https://"))


def _git(this: Add, path: str, repository: GitUrl, name: str) -> GitSource:
    keep, checksum = this.keep_git_dir, this.checksum
    if repository.keep_git_dir is not None:
        if keep is not None and keep != repository.keep_git_dir:
            raise DockerfileError("inconsistent keep-git-dir configuration")
        keep = repository.keep_git_dir
    if checksum and repository.checksum and checksum != repository.checksum:
        raise DockerfileError(
            f"checksum mismatch {quoted(checksum)} != {quoted(repository.checksum)}"
        )
    return GitSource(
        name=name,
        place=this.place,
        url=path,
        checksum=repository.checksum or checksum,
        keep_git_dir=bool(keep),
    )


def _http(this: Add, url: str, name: str) -> HttpSource:
    from urllib.parse import unquote, urlsplit  # noqa: PLC0415 - few copy from URLs

    if this.checksum and not digests.valid(this.checksum):
        raise DockerfileError(
            "invalid checksum digest format", "it is sha256: and 64 hexadecimal digits"
        )
    try:
        filename = posixpath.basename(unquote(urlsplit(url).path).rstrip("/"))
    except ValueError:
        filename = ""
    if filename in {"", ".", ".."} or "\0" in filename:
        filename = _UNNAMED
    return HttpSource(
        name=name, place=this.place, url=url, checksum=this.checksum, filename=filename
    )
