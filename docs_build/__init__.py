"""Builds the documentation from the code; not part of the package that is installed.

``python -m docs_build`` writes the generated parts of all pages anew, ``mkdocs build --strict`` makes the site.
"""
