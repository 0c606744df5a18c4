"""The pages of the repository, and what stands in them."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

__all__ = ["DOCS", "ROOT", "Block", "Page", "Row", "pages"]

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"

_NOT_OURS = frozenset({"build", "dist", "node_modules", "site"})
_PARSER = MarkdownIt("commonmark").enable("table")


def pages() -> list[Path]:
    """All Markdown files of the repository, but what is hidden, built or fetched."""
    return sorted(_files(ROOT))


def _files(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.name.startswith(".") or path.name in _NOT_OURS or path.is_symlink():
            continue
        if path.is_dir():
            yield from _files(path)
        elif path.suffix == ".md":
            yield path


@dataclass(frozen=True, slots=True)
class Block:
    """A block of code; ``language`` is empty where it names none. ``line`` counts from 1."""

    language: str
    text: str
    line: int


@dataclass(frozen=True, slots=True)
class Row:
    """A cell's code spans, in a table whose column is called ``head``."""

    head: str
    codes: tuple[str, ...]


@dataclass(frozen=True)
class Page:
    """A page, read once."""

    path: Path
    text: str = field(repr=False)

    @classmethod
    def read(cls, path: Path) -> "Page":
        """The page in that file."""
        return cls(path, path.read_text(encoding="utf-8"))

    @property
    def name(self) -> str:
        """Its path in the repository."""
        return str(self.path.relative_to(ROOT))

    @cached_property
    def _tokens(self) -> list[Token]:
        return _PARSER.parse(self.text)

    @cached_property
    def _inline(self) -> list[Token]:
        return [child for token in self._tokens for child in token.children or ()]

    @property
    def blocks(self) -> Iterator[Block]:
        """Blocks of code, fenced or indented."""
        for token in self._tokens:
            if token.type in ("fence", "code_block"):
                yield Block(token.info.strip(), token.content, (token.map or [0])[0] + 1)

    @property
    def codes(self) -> list[str]:
        """Spans of code."""
        return [token.content for token in self._inline if token.type == "code_inline"]

    @property
    def words(self) -> list[str]:
        """Texts between marks, and spans of code."""
        return [token.content for token in self._inline if token.type in ("text", "code_inline")]

    @property
    def links(self) -> list[str]:
        """Targets of links and images."""
        named = [(token, {"link_open": "href", "image": "src"}.get(token.type, "")) for token in self._inline]
        return [str(token.attrGet(name)) for token, name in named if name]

    @property
    def headings(self) -> list[str]:
        """Texts of headings, without marks."""
        following = zip(self._tokens, self._tokens[1:], strict=False)
        inside = [content for opening, content in following if opening.type == "heading_open"]
        return ["".join(child.content for child in token.children or ()) for token in inside]

    @property
    def lead(self) -> str:
        """The first paragraph, without links; empty where there is none."""
        following = zip(self._tokens, self._tokens[1:], strict=False)
        first = next((content for opening, content in following if opening.type == "paragraph_open"), None)
        return "".join(map(_plain, first.children or ())) if first else ""

    @property
    def rows(self) -> Iterator[Row]:
        """Cells of all tables' bodies."""
        heads: list[str] = []
        column = 0
        kind = ""
        for token in self._tokens:
            if token.type == "thead_open":
                heads = []
            elif token.type == "tr_open":
                column = 0
            elif token.type in ("th_open", "td_open"):
                kind = token.type
            elif token.type == "inline" and kind == "th_open":
                heads.append(token.content)
            elif token.type == "inline" and kind == "td_open":
                found = (child.content for child in token.children or () if child.type == "code_inline")
                yield Row(heads[column], tuple(found))
            elif token.type in ("th_close", "td_close"):
                kind = ""
                column += 1


def _plain(token: Token) -> str:
    return {"code_inline": f"`{token.content}`", "softbreak": " "}.get(token.type, token.content)
