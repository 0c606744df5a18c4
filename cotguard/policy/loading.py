"""From a name, a file or a text to a policy.

Everything that can be said about a bad policy is said at once. Beyond the shape of the file two things are refused
because they look like protection and are none: a rule that never decides, and known values that no rule acts on.

Guarantees: errors and what they are raised from never hold known values.
"""

from collections.abc import Collection
from pathlib import Path

from pydantic import ValidationError

from cotguard.policy.compiled import Policy, compile_policy, idle_rules
from cotguard.policy.document import PolicyDocument, RequestTexts, known_value_fault
from cotguard.policy.errors import PolicyError, Problem, closest
from cotguard.policy.explain import explain
from cotguard.policy.source import MAX_CHARS, Source, read

__all__ = ["is_ready", "lists_values", "load", "parse", "parse_draft", "ready_policies"]

MAX_KNOWN_VALUES_BYTES = 8 << 20

_VALUES_FILE = ("known_values", "file")
_READY = Path(__file__).with_name("ready")


def ready_policies() -> list[str]:
    """Names of the policies that come with cotguard."""
    return sorted(path.stem for path in _READY.glob("*.yaml"))


def is_ready(policy: Policy) -> bool:
    """Whether ``policy`` comes with cotguard."""
    return Path(policy.file).parent == _READY


def lists_values(text: str) -> bool:
    """Whether the text of a policy, which must be a good one, lists known values itself."""
    return bool(PolicyDocument.model_validate(read(text, "").data).known_values.values)


def load(name_or_path: str) -> Policy:
    """The ready policy of that name, or else the policy in that file. Raises :class:`PolicyError`.

    A file that is called like a ready policy needs a path with a slash: ``./balanced``.
    """
    if name_or_path in ready_policies():
        path = _READY / f"{name_or_path}.yaml"
    else:
        path = Path(name_or_path)
        if _is_missing(path):
            meant = closest(name_or_path, ready_policies())
            hint = f"did you mean {meant[0]}?" if meant else f"ready policies are: {', '.join(ready_policies())}"
            raise PolicyError([Problem(name_or_path, 0, 0, "no such file, and no ready policy of this name", hint)])
    try:
        text = _text(path, MAX_CHARS)
    except _UnreadableError as error:
        raise PolicyError([Problem(str(path), error.line, error.column, error.reason, error.hint)]) from None
    return parse(text, str(path), path.parent)


def parse(text: str, source: str, directory: Path | None) -> Policy:
    """The policy in ``text``, which errors call ``source``. Raises :class:`PolicyError`.

    A relative file of known values is looked for in ``directory``; without one it is refused.
    """
    return _parsed(text, source, directory)


def parse_draft(text: str, source: str, replaced: Policy) -> Policy:
    """The policy in ``text``, which may take the place of ``replaced``. Raises :class:`PolicyError`.

    Whoever writes drafts need not be whoever may read files: of these it may name the one that ``replaced`` names.
    """
    folder = Path(replaced.file).parent if replaced.file else None
    return _parsed(text, source, folder, {Path(replaced.values_file)} if replaced.values_file else set())


def _parsed(text: str, source: str, directory: Path | None, readable: Collection[Path] | None = None) -> Policy:
    """``readable``: the only files of known values that may be read, if not any may."""
    yaml_source = read(text, source)
    try:
        document = PolicyDocument.model_validate(yaml_source.data)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        raise explain(problems, yaml_source) from None
    path = _values_path(document, yaml_source, directory, readable)
    listed = [] if path is None else _values_in_file(path, yaml_source)
    values = tuple(dict.fromkeys((*document.known_values.values, *listed)))
    file = "" if directory is None or readable is not None else source
    policy = compile_policy(document, values, file, str(path or ""))
    _refuse_what_does_nothing(document, policy, yaml_source)
    return policy


def _refuse_what_does_nothing(document: PolicyDocument, policy: Policy, source: Source) -> None:
    problems = [
        source.problem(
            ("rules", index),
            "this rule never decides: rules before it take every value it names",
            "move it up, or remove it",
        )
        for index in idle_rules(document)
    ]
    if document.request.texts is RequestTexts.IGNORE:
        reason = "where a value stands in the request is unknown: texts of requests are ignored"
        hint = 'write "request: {texts: read}", or remove this'
        problems += [
            source.problem(("rules", index, "unless_origin"), reason, hint, at_key=True)
            for index, rule in enumerate(document.rules)
            if rule.unless_origin
        ]
    if policy.known_values and not policy.acts("KNOWN_VALUE"):
        reason = "these values are listed, but no rule does anything about KNOWN_VALUE"
        hint = "add the rule {entities: [KNOWN_VALUE], action: redact}"
        problems.append(source.problem(("known_values",), reason, hint, at_key=True))
    if problems:
        raise PolicyError(problems)


class _UnreadableError(Exception):
    """A file that cannot be used; turned into a :class:`PolicyError` where it is known what names the file."""

    def __init__(self, reason: str, hint: str, line: int = 0, column: int = 0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.hint = hint
        self.line = line
        self.column = column


def _is_missing(path: Path) -> bool:
    try:
        return not path.exists()
    except OSError:
        return False  # what is wrong with it is told when it is read


def _text(path: Path, max_bytes: int) -> str:
    try:
        if not path.is_file():
            raise _UnreadableError("no such file", "name a regular file that exists")
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except OSError as error:
        raise _UnreadableError(f"cannot be read: {error.strerror}", "check its name and its permissions") from None
    if len(data) > max_bytes:
        raise _UnreadableError(f"larger than {max_bytes} bytes", "is this the right file?")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        before = data[: error.start]
        line, column = before.count(b"\n") + 1, error.start - before.rfind(b"\n")
        raise _UnreadableError("not UTF-8 text from here", "save the file as UTF-8", line, column) from None


def _values_path(
    document: PolicyDocument, source: Source, directory: Path | None, readable: Collection[Path] | None
) -> Path | None:
    """The file of known values, if there is one."""
    name = document.known_values.file
    if not name:
        return None
    path = (directory or Path()) / name
    if readable is not None and path not in readable:
        reason = "a draft reads no other file of known values than the policy that it is to replace"
        raise PolicyError([source.problem(_VALUES_FILE, reason, "write the values themselves")])
    if directory is None and not path.is_absolute():
        reason = "a relative file is of no use here: this policy stands in no folder"
        raise PolicyError([source.problem(_VALUES_FILE, reason, "write an absolute path, or the values themselves")])
    return path


def _values_in_file(path: Path, source: Source) -> list[str]:
    try:
        text = _text(path, MAX_KNOWN_VALUES_BYTES)
    except _UnreadableError as error:
        if error.line:
            raise PolicyError([Problem(str(path), error.line, error.column, error.reason, error.hint)]) from None
        raise PolicyError([source.problem(_VALUES_FILE, f"{path}: {error.reason}", error.hint)]) from None
    values: list[str] = []
    problems: list[Problem] = []
    for number, line in enumerate(text.removeprefix("\ufeff").split("\n"), start=1):
        value = line.strip()
        if not value or value.startswith("#"):
            continue
        fault = known_value_fault(value)
        if fault:
            problems.append(Problem(str(path), number, line.index(value) + 1, *fault))
        values.append(value)
    if problems:
        raise PolicyError(problems)
    return values
