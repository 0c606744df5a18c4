"""Recalled values: what a request's texts hold, found again in what the model writes.

Most leaks in reasoning are plain recollection of the prompt. The values are found in every form that
:mod:`cotguard.detectors.known_values` knows, and each is reported as the entity that it was found as in the request.
Made for one exchange and never shared.
"""

from collections.abc import Collection
from typing import Final

from cotguard.detectors.contract import Scope, Session
from cotguard.detectors.known_values import Value, ValueSearch

__all__ = ["Recalled"]


class Recalled:
    """Finds ``values``, each as its entity. ``ValueError`` says which is too short, not what it is."""

    name: Final = "recalled"

    def __init__(self, values: Collection[Value]) -> None:
        self.entities = frozenset(entity for entity, _ in values)
        self._search = ValueSearch(self.name, values)

    def open(self, scope: Scope) -> Session | None:
        return self._search.open(scope)
