"""``cotguard config``, and the flags of ``serve``."""

import argparse
import os
import sys
from collections.abc import Mapping

from cotguard.config.schema import render
from cotguard.config.settings import FILE_ONLY, SECTIONS, Settings
from cotguard.config.show import shown
from cotguard.config.sources import Loaded, Sources
from cotguard.policy import load

__all__ = ["add_config", "add_flags", "check_config", "sources_of"]

_CONFIG = "a YAML file with the settings below, upstreams and routes (docs/configuration.md)"
_EXAMPLES = """\
examples:
  cotguard config show --config cotguard.yaml     # every setting, and where it came from; secrets masked
  cotguard config schema > cotguard.schema.json   # for an editor that completes and checks

What a running gateway answers by is what `show` prints with the same file, flags and environment."""


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add every setting that is a flag, by subject, and ``--config``."""
    parser.add_argument("--config", help=_CONFIG, metavar="FILE")
    for section in SECTIONS:
        group = parser.add_argument_group(section.subject)
        for name, field in section.model_fields.items():
            default = f" (default {field.default!r})" if field.default != "" else ""
            group.add_argument("--" + name.replace("_", "-"), help=f"{field.description}{default}", metavar="VALUE")


def sources_of(arguments: argparse.Namespace) -> Sources:
    """What the settings are loaded from."""
    flags = {name: getattr(arguments, name) for name in Settings.model_fields.keys() - FILE_ONLY}
    return Sources.of(flags, arguments.config)


def add_config(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the command."""
    raw = argparse.RawDescriptionHelpFormatter
    config = commands.add_parser("config", help="the configuration in force", epilog=_EXAMPLES, formatter_class=raw)
    tasks = config.add_subparsers(required=True, metavar="TASK")
    show = tasks.add_parser("show", help="print every setting and where it came from, secrets masked")
    add_flags(show)
    show.set_defaults(run=_show)
    schema = tasks.add_parser("schema", help="print the JSON Schema of config files")
    schema.set_defaults(run=_schema)


def check_config(path: str, environment: Mapping[str, str] = os.environ) -> Loaded:
    """The settings of the config file at ``path``, with all files that it names. Raises what loading them raises."""
    loaded = Sources({}, environment, path).load()
    for name in loaded.settings.policies:
        load(name)
    return loaded


def _show(arguments: argparse.Namespace) -> int:
    sys.stdout.write(shown(sources_of(arguments).load()))
    return 0


def _schema(_arguments: argparse.Namespace) -> int:
    sys.stdout.write(render())
    return 0
