"""The course's pages among themselves: what they explain, where they lead, both languages."""

import pathlib
import re

import pytest

from scripts import drawings
from tests.support import course, images

CHINESE = course.COURSE / "zh"
TRANSLATED = sorted(path.name for path in CHINESE.glob("*.md"))
_PYTHON = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)#]+)(?:#([^)]+))?\)")


def _lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


def test_every_line_of_the_little_engine_is_on_its_page() -> None:
    page = (course.COURSE / "13-mini.md").read_text(encoding="utf-8")
    shown = "".join(_PYTHON.findall(page))
    assert _lines(shown) == _lines((course.COURSE / "mini.py").read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", course.PAGES)
def test_both_languages_type_and_print_the_same(page: str) -> None:
    assert TRANSLATED == course.PAGES
    assert course.blocks(CHINESE / page) == course.blocks(course.COURSE / page)
    english, chinese = ((place / page).read_text(encoding="utf-8")
                        for place in (course.COURSE, CHINESE))  # fmt: skip
    assert _PYTHON.findall(chinese) == _PYTHON.findall(english)


@pytest.mark.parametrize("page", course.PAGES)
@pytest.mark.parametrize("place", [course.COURSE, CHINESE], ids=["english", "chinese"])
def test_links_lead_somewhere(place: pathlib.Path, page: str) -> None:
    for target, heading in _LINK.findall((place / page).read_text(encoding="utf-8")):
        if not target.startswith("https://"):
            path = place / target
            assert path.exists(), target
            if heading:
                names = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
                known = {re.sub(r"[^\w -]", "", name.lower()).replace(" ", "-") for name in names}
                assert heading in known, f"{target}#{heading}"


@pytest.mark.parametrize("page", [page for page in course.PAGES if page != "README.md"])
def test_files_to_read_are_there(page: str) -> None:
    text = (course.COURSE / page).read_text(encoding="utf-8")
    named = re.findall(r"`((?:[a-z_]+/)+[a-z_]*(?:\.py)?)`", text)
    assert named
    package = images.CHECKOUT / "src" / "ketch"
    assert [name for name in named if not (package / name).exists()] == []


def test_pictures_are_those_of_their_texts() -> None:
    found = {path: path.read_text(encoding="utf-8") for path in drawings.PLACE.glob("*.svg")}
    assert found == drawings.pictures(), "run scripts/drawings.py"


@pytest.mark.parametrize("text", [
    "drawing 10 10 A | B\nbox a 8,0 3x2 wide",
    "drawing 10 10 T\nbox a 0,0 2x2 too long for that",
    "drawing 10 10 T\nbox a 0,0 9x1 one | two | three",
    "drawing 10 10 T\nbox a 0,0 2x2\nbox a 4,0 2x2",
    "drawing 10 10 T\narrow a.r b.l",
    "drawing 10 10 T\ncircle a",
])  # fmt: skip
def test_what_cannot_be_drawn_is_told(text: str) -> None:
    with pytest.raises(drawings.DrawingError, match=r"^line "):
        drawings.draw(text)


def _is_as_told(page: pathlib.Path, text: str, *printed: str) -> bool:
    page.write_text(text)
    (block,) = course.blocks(page)
    ended = "".join(f"{one}{course.END}0\n" for one in printed)
    return course.expected(block).fullmatch(ended) is not None


def test_what_is_printed_is_compared(tmp_path: pathlib.Path) -> None:
    page = tmp_path / "page.md"
    text = "   ```console\n   # first\n   a (b)\n   inside# second\n   > and more\n   ```\n"
    assert _is_as_told(page, text, "a (b)\n", "")
    assert not _is_as_told(page, text, "a b\n", "")
    assert not _is_as_told(page, text, "a (b)\n", "c\n")
    assert not _is_as_told(page, text, "", "a (b)\n")
    assert [step.typed for step in course.blocks(page)[0].steps] == ["first", "second\nand more"]


def test_what_varies_is_the_same_where_it_is_said_twice(tmp_path: pathlib.Path) -> None:
    page = tmp_path / "page.md"
    text = "<!-- varies: \\b\\d+\\b -->\n```console\n# one\npid 17 of 18, 17\n```\n"
    assert _is_as_told(page, text, "pid 4 of 5, 4\n")
    assert not _is_as_told(page, text, "pid 4 of 5, 5\n")
    assert not _is_as_told(page, text, "pid x of 5, x\n")


def test_what_is_left_out_may_be_anything(tmp_path: pathlib.Path) -> None:
    page = tmp_path / "page.md"
    text = "```console v2\n# one\nsize ... of 3\n...\nlast\n```\n"
    assert _is_as_told(page, text, "size 1, 2 of 3\nand\nmore\nlast\n")
    assert _is_as_told(page, text, "size  of 3\nlast\n")
    assert not _is_as_told(page, text, "size 1\nof 3\nlast\n")
    assert course.blocks(page)[0].only == "v2"
