"""What mkdocs asks for while it builds the site (``hooks`` in ``mkdocs.yml``).

1. Papers at the top of the repository become pages.
2. Links that lead out of ``docs`` lead to these pages, or become names of files where the site has no such page.
"""

import os
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from docs_build.nav import PAPERS
from docs_build.pages import DOCS, ROOT

__all__ = ["on_files", "on_page_markdown"]

_LINK = re.compile(r"\[([^\]]*)\]\(([^)#\s]+)(#[^)\s]*)?\)")
_PAGES = {source: name for name, source in PAPERS.items()}


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the papers."""
    for name, source in PAPERS.items():
        files.append(File.generated(config, name, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001  # mkdocs names them
    """Turn the links of a page."""
    source = PAPERS.get(page.file.src_uri)
    folder = ROOT if source else DOCS

    def turned(found: re.Match[str]) -> str:
        words, target, anchor = found[1], found[2], found[3] or ""
        path = Path(os.path.normpath(folder / target))
        if "://" in target or not path.exists() or (not source and path.is_relative_to(DOCS)):
            return found[0]
        if path.is_relative_to(DOCS):
            return f"[{words}]({path.relative_to(DOCS)}{anchor})"
        name = str(path.relative_to(ROOT))
        if name in _PAGES:
            return f"[{words}]({_PAGES[name]}{anchor})"
        return words if name.rstrip("/") in words else f"{words} (`{name}`)"

    return _LINK.sub(turned, markdown)
