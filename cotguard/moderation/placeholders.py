"""Placeholders for the values of one exchange, and the way back.

On the way to the upstream a value is replaced by its placeholder, ``[EMAIL_ADDRESS_1]``, numbered for each entity in
the order in which values are met. What the model writes with it is read by
:class:`~cotguard.detectors.placeholders.GivenPlaceholders` and gets the value again.

* The same value always gets the same placeholder, whatever entity it is taken for later. Values are the same that are
  equal to the last character, so that what is restored is what was there.
* The map lives as long as its exchange, and no other exchange ever sees it. A client sends its history with every turn,
  so texts that were there before get the numbers that they had.
* Text of the client that reads as a placeholder is a value too (:class:`~cotguard.detectors.placeholders.
  PlaceholderShapes`): it gets one of its own, ``[PLACEHOLDER_1]``, and is restored as it stood. So every text comes
  back as it was, and what a client writes restores nothing.
"""

from collections.abc import Mapping
from html import escape
from urllib.parse import quote

from cotguard.detectors.placeholders import PLACEHOLDER, Placeholder
from cotguard.taxonomy import ENTITIES

__all__ = ["Placeholders"]


class Placeholders:
    """See the module. Its ``repr`` shows no value."""

    __slots__ = ("_counts", "_placeholders", "_values")

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._placeholders: dict[str, str] = {}  # by value
        self._values: dict[tuple[str, int], str] = {}

    @property
    def counts(self) -> Mapping[str, int]:
        """How many were given out, by name; names without any are missing."""
        return self._counts

    def pseudonym(self, entity: str, value: str) -> str:
        """The placeholder for ``value``. Entities that the taxonomy does not know share the name ``PLACEHOLDER``."""
        placeholder = self._placeholders.get(value)
        if placeholder is None:
            name = entity if entity in ENTITIES else PLACEHOLDER
            number = self._counts[name] = self._counts.get(name, 0) + 1
            placeholder = self._placeholders[value] = f"[{name}_{number}]"
            self._values[name, number] = value
        return placeholder

    def restored(self, written: str) -> str:
        """The value of a placeholder that was given out, ``written`` in any shape; ``KeyError`` for any other text.

        Where the brackets are percent-encoded or escaped for HTML, so is the value.
        """
        found = Placeholder.read(written, 0, borders=True)
        if found is None or found.end != len(written):
            raise KeyError("no placeholder")
        value = self._values[found.name, found.number]
        if found.opening[:1] == "%":
            return quote(value, safe="")
        return escape(value) if found.opening[:1] == "&" else value
