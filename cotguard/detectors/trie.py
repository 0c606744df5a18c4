"""Many strings searched for at once: an Aho-Corasick automaton that is built as far as texts reach into it.

A *form* is a string of symbols (here: characters). The automaton's state is the longest suffix of what was read that
begins a form, so it says at once which forms just ended and from where on text must be held. Source: Aho and Corasick,
"Efficient string matching", CACM 18(6), 1975.

Ordinary text reaches a few symbols deep, so a node gets its children, and they their failure links, when it is first
left: making an automaton costs little more than a list of its forms. A step costs constant time, amortised; all nodes
together are linear in the forms.
"""

from collections.abc import Iterable, Sequence

__all__ = ["ROOT", "Automaton", "Cursor"]

ROOT = 0


class Automaton:
    """The automaton of ``forms``. Nodes are numbered from ``ROOT``; a node is a beginning of a form."""

    __slots__ = ("_forms", "children", "depths", "endings", "failures", "height", "spelt")

    def __init__(self, forms: Iterable[str]) -> None:
        distinct = [form for form in dict.fromkeys(forms) if form]
        self.height = max(map(len, distinct), default=0)
        """Length of the longest form; 0 when there is none."""
        self._forms = [distinct]  # per node, the forms that it begins; empty once it has its children
        self.children: list[dict[str, int] | None] = [None]
        """Per node, its children by symbol; ``None`` as long as nobody asked (see ``expand``)."""
        self.depths = [0]
        self.failures = [ROOT]
        """Per node, the longest proper suffix of it that is a node."""
        self.endings = [ROOT]
        """Per node, the longest suffix of it that is a form, as a node; ``ROOT`` where there is none."""
        self.spelt: dict[int, str] = {}
        """The forms, by their nodes."""
        self._branch(ROOT)

    def expand(self, node: int) -> dict[str, int]:
        """The children of ``node``. It and all nodes down its failure links have theirs from now on."""
        bare: list[int] = []
        while (children := self.children[node]) is None:
            bare.append(node)
            node = self.failures[node]
        for node in reversed(bare):
            children = self._branch(node)
        return children

    def _branch(self, node: int) -> dict[str, int]:
        depth = self.depths[node]
        groups: dict[str, list[str]] = {}
        for form in self._forms[node]:
            if len(form) > depth:
                groups.setdefault(form[depth], []).append(form)
        self._forms[node] = []
        branches = self.children[node] = {}
        for symbol, forms in groups.items():
            child = branches[symbol] = len(self.depths)
            failure = self.follow(self.failures[node], symbol) if node else ROOT
            self._forms.append(forms)
            self.children.append(None)
            self.depths.append(depth + 1)
            self.failures.append(failure)
            whole = next((form for form in forms if len(form) == depth + 1), None)
            if whole is not None:
                self.spelt[child] = whole
            self.endings.append(child if whole is not None else self.endings[failure])
        return branches

    def follow(self, node: int, symbol: str) -> int:
        """The state that ``symbol`` leads to from the state ``node``."""
        children = self.children[node]
        if children is None:
            children = self.expand(node)
        while symbol not in children and node:
            node = self.failures[node]
            children = self.expand(node)
        return children.get(symbol, ROOT)


class Cursor:
    """A search under way. Keeps the origins of at most twice ``Automaton.height`` symbols."""

    __slots__ = ("_automaton", "_origins", "node")

    def __init__(self, automaton: Automaton, origins: Iterable[int | None] = ()) -> None:
        self._automaton = automaton
        self.node = ROOT
        self._origins = list(origins)

    def copy(self) -> "Cursor":
        """An independent cursor in the same place."""
        twin = Cursor(self._automaton, self._origins)
        twin.node = self.node
        return twin

    def reset(self) -> None:
        """Begin anew: no form spans what was read and what comes."""
        self.node = ROOT
        self._origins.clear()

    @property
    def hold(self) -> int | None:
        """Origin of the earliest form that may be under way and is not at its end."""
        return self._origins[-self._automaton.depths[self.node]] if self.node else None

    def step(self, symbol: str, origin: int | None) -> Sequence[tuple[int, str]]:
        """Read a symbol. Returns the forms that end with it, each with its origin, the longest first.

        ``origin`` is the caller's note of where a form that begins with this symbol begins; ``None`` says that none
        may begin here.
        """
        automaton = self._automaton
        failures, depths, endings = automaton.failures, automaton.depths, automaton.endings
        origins = self._origins
        origins.append(origin)
        node = automaton.follow(self.node, symbol)
        ending = endings[node]
        # What began where nothing may begin, and a form that cannot go on, are done with: the next shorter beginning
        # is down the failure links.
        while node and (origins[-depths[node]] is None or (endings[node] == node and not automaton.expand(node))):
            node = failures[node]
        self.node = node
        ended = self._ended(ending) if ending else ()
        if not node:
            origins.clear()
        elif len(origins) > 2 * automaton.height:
            del origins[: -automaton.height]
        return ended

    def _ended(self, ending: int) -> list[tuple[int, str]]:
        automaton = self._automaton
        ended: list[tuple[int, str]] = []
        while ending:
            begin = self._origins[-automaton.depths[ending]]
            if begin is not None:
                ended.append((begin, automaton.spelt[ending]))
            ending = automaton.endings[automaton.failures[ending]]
        return ended
