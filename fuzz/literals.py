"""A detector of given values, exact in every surrounding: patterns leave a value where a letter too many stands."""

from collections.abc import Sequence

from cotguard.detectors.contract import Scope
from cotguard.spans import Span

__all__ = ["Literals"]


class Literals:
    """A :class:`~cotguard.detectors.contract.Detector` that finds ``values`` as they are."""

    name = "literals"
    entities = frozenset({"KNOWN_VALUE"})

    def __init__(self, values: Sequence[str]) -> None:
        self._values = values

    def open(self, scope: Scope) -> "_Session":
        return _Session(self._values, scope.context)


class _Session:
    def __init__(self, values: Sequence[str], context: str) -> None:
        self._values = values
        self._text = context
        self._origin = self._searched = len(context)  # what ends there is another channel's

    def advance(self, text: str, final: bool) -> tuple[Sequence[Span], int]:
        self._text += text
        found = []
        for value in self._values:
            at = self._text.find(value, max(0, self._searched - len(value) + 1))
            while at >= 0:
                start = at - self._origin
                found.append(Span(start, start + len(value), "KNOWN_VALUE", 1.0, Literals.name))
                at = self._text.find(value, at + 1)
        self._searched = len(self._text)
        begun = 0 if final else max(self._begun(value) for value in self._values)
        return found, self._searched - begun - self._origin

    def _begun(self, value: str) -> int:
        """How much of ``value`` the text ends with."""
        longest = min(len(value) - 1, len(self._text))
        return next((size for size in range(longest, 0, -1) if self._text.endswith(value[:size])), 0)
