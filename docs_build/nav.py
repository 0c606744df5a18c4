"""The site's table of contents: every page with its first sentence, by section, as ``mkdocs.yml`` orders them."""

import re
from collections.abc import Iterator, Mapping

import yaml

from docs_build.pages import DOCS, ROOT, Page
from docs_build.tables import table

__all__ = ["PAPERS", "listed", "reference"]

PAPERS: Mapping[str, str] = {
    "changelog.md": "CHANGELOG.md",
    "contributing.md": "CONTRIBUTING.md",
    "readme.md": "README.md",
    "security.md": "SECURITY.md",
    "threat-model.md": "THREAT_MODEL.md",
}
"""Pages of the site that stand at the top of the repository, by their names there."""

_SENTENCE = re.compile(r"(.+?)[.:](?:\s|$)", re.DOTALL)


def listed() -> list[str]:
    """All pages of the navigation."""
    return [page for _, pages in _sections() for _, page in pages]


def reference() -> str:
    """All pages but this one."""
    return "\n".join(f"### {section}\n\n{table(('page', ''), map(_row, pages))}" for section, pages in _sections()[1:])


def _sections() -> list[tuple[str, list[tuple[str, str]]]]:
    """Headings, with titles and names of pages."""
    entries = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    return [(section, list(_pages(below))) for entry in entries for section, below in entry.items()]


def _pages(below: str | list[dict[str, str]]) -> Iterator[tuple[str, str]]:
    if isinstance(below, str):
        yield "", below
    else:
        for entry in below:
            yield from entry.items()


def _row(entry: tuple[str, str]) -> tuple[str, str]:
    title, name = entry
    paper = PAPERS.get(name)
    page = Page.read(ROOT / paper if paper else DOCS / name)
    found = _SENTENCE.match(page.lead)
    return f"[{title}]({f'../{paper}' if paper else name})", (found[1] if found else page.lead).replace("\n", " ")
