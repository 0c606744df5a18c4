"""The reference of the command line, from its parsers.

argparse has no public way to look at a parser: so what is private of it is used.
"""

import argparse
import textwrap
from collections.abc import Iterable, Iterator

from cotguard.cli import command_line
from cotguard.config.settings import SECTIONS
from docs_build.tables import table

__all__ = ["options", "reference"]

_SUBJECTS = frozenset(section.subject for section in SECTIONS)
_EXAMPLES = "examples:\n"


def options() -> frozenset[str]:
    """All flags of all commands."""
    parsers = [command_line(), *(parser for parser, _ in _commands(command_line()))]
    return frozenset(option for parser in parsers for option in parser._option_string_actions)  # noqa: SLF001


def reference() -> str:
    """Every command with its arguments; settings of the gateway are told elsewhere."""
    return "\n".join(_section(parser, told) for parser, told in _commands(command_line()))


def _section(parser: argparse.ArgumentParser, told: str) -> str:
    parts = [f"{'#' * (parser.prog.count(' ') + 1)} {parser.prog}", f"{told[:1].upper()}{told[1:]}."]
    groups = list(_groups(parser))
    if _SUBJECTS & {title for title, _ in groups}:
        parts.append("Every [setting](configuration.md#settings) is a flag.")
    rows = [_row(action) for title, actions in groups if title not in _SUBJECTS for action in actions]
    if rows:
        parts.append(table(("argument", ""), rows).rstrip())
    return "\n\n".join([*parts, *_epilog(parser.epilog or "")]) + "\n"


def _row(action: argparse.Action) -> tuple[str, str]:
    value = "" if action.nargs == 0 else str(action.metavar or action.dest.upper())
    value += " ..." if action.nargs in ("+", "*") else ""
    names = ", ".join(f"`{f'{name} {value}'.rstrip()}`" for name in action.option_strings or [""]).replace("` ", "`")
    words = f": {', '.join(f'`{word}`' for word in action.choices)}" if action.choices else ""
    required = "; must be there" if action.required and action.option_strings else ""
    return names, f"{action.help or ''}{words}{required}"


def _epilog(text: str) -> Iterator[str]:
    for part in text.split("\n\n"):
        if part.startswith(_EXAMPLES):
            yield f"```sh\n{textwrap.dedent(part.removeprefix(_EXAMPLES))}\n```"
        elif part:
            yield part


def _groups(parser: argparse.ArgumentParser) -> Iterator[tuple[str, list[argparse.Action]]]:
    """Titles of groups of arguments, with the arguments, without ``--help`` and commands."""
    for group in parser._action_groups:  # noqa: SLF001
        hidden = (argparse._HelpAction, argparse._SubParsersAction)  # noqa: SLF001
        yield group.title or "", [each for each in group._group_actions if not isinstance(each, hidden)]  # noqa: SLF001


def _commands(parser: argparse.ArgumentParser) -> Iterator[tuple[argparse.ArgumentParser, str]]:
    """The commands below ``parser``, each with what the list of commands says of it."""
    for action in parser._actions:  # noqa: SLF001
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            told: Iterable[argparse.Action] = action._choices_actions  # noqa: SLF001
            for each, (_, command) in zip(told, action.choices.items(), strict=True):
                yield command, each.help or ""
                yield from _commands(command)
