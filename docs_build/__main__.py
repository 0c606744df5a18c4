"""``python -m docs_build``: write the generated parts of all pages anew; they must not be edited."""

from docs_build.pages import pages
from docs_build.parts import filled


def main() -> None:
    """Write the pages that have changed."""
    for page in pages():
        text = page.read_text(encoding="utf-8")
        if (current := filled(text)) != text:
            page.write_text(current, encoding="utf-8")


if __name__ == "__main__":
    main()
