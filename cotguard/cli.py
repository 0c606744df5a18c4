"""The command line: ``serve``, ``keys``, ``audit``, ``demo``, ``scan``, ``check``, ``bundle``."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from pydantic import ValidationError

from cotguard import __version__
from cotguard.audit.commands import add_audit
from cotguard.callers.document import KeyScope
from cotguard.callers.keys import Key, KeyStore, KeyStoreError
from cotguard.callers.limits import DAY
from cotguard.classifier.bundle import BundleError, ready_bundles
from cotguard.config.commands import add_config, add_flags, check_config, sources_of
from cotguard.config.errors import SettingsError
from cotguard.policy import PolicyError, load, ready_policies, sentences
from cotguard.scan import command as scanning

__all__ = ["command_line", "main"]

_USAGE_ERROR = 2

_SERVE_EXAMPLES = """\
examples:
  cotguard serve --upstream http://127.0.0.1:8000
  cotguard serve --upstream https://models.example.com --policy strict
  cotguard serve --upstream http://10.0.0.5:8000 --listen 0.0.0.0:8080 --keys keys.db --callers-file callers.yaml
  COTGUARD_UPSTREAM=http://127.0.0.1:8000 cotguard serve --config cotguard.yaml
  cotguard check --config cotguard.yaml && kill -HUP PID     # reloads; a changed file is followed anyway

Then point your client's base URL at http://127.0.0.1:8080/v1. At a terminal the address of the web console is printed,
with a token to log in; elsewhere set COTGUARD_ADMIN_TOKEN. A flag wins over COTGUARD_* in the environment,
which wins over the config file (`name: value`, and what only a file can say: upstreams and routes). Compiled rules
are kept in $COTGUARD_CACHE (default ~/.cache/cotguard, empty for nowhere), which makes the next start faster."""

_KEYS_EXAMPLES = """\
examples:
  cotguard keys create --store keys.db --name "Ann's laptop" --role reader --expires 90
  cotguard keys create --store keys.db --name batch --role reader --models 'llama-*' --requests-per-minute 30
  cotguard keys list --store keys.db
  cotguard keys revoke --store keys.db 0123456789abcdef

A key is shown once, when it is created. Roles are written in a callers file (docs/callers.md). A key that is revoked
is refused at once, also by gateways that are running."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 0, 1 for a fault, 2 for wrong usage or input."""
    arguments = command_line().parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except (PolicyError, SettingsError, BundleError, KeyStoreError) as error:
        print(error, file=sys.stderr)  # noqa: T201
        return _USAGE_ERROR
    except KeyboardInterrupt:
        return 130


def command_line() -> argparse.ArgumentParser:
    """The parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="cotguard",
        description="Moderates reasoning traces and answers of language models while they stream.",
        epilog="Start with `cotguard demo`. Each command has its own --help with examples.",
    )
    parser.add_argument("--version", action="version", version=f"cotguard {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    raw = argparse.RawDescriptionHelpFormatter

    serve = commands.add_parser("serve", help="run the proxy", epilog=_SERVE_EXAMPLES, formatter_class=raw)
    add_flags(serve)
    serve.add_argument("--workers", type=int, default=1, help="processes that share the port (default 1)", metavar="N")
    serve.set_defaults(run=_serve)

    add_config(commands)

    keys = commands.add_parser("keys", help="API keys of the gateway's own", epilog=_KEYS_EXAMPLES, formatter_class=raw)
    _add_keys(keys.add_subparsers(required=True, metavar="TASK"))

    add_audit(commands)

    demo = commands.add_parser("demo", help="watch a moderated stream beside the raw one; needs nothing else")
    demo.add_argument("--fast", action="store_true", help="do not wait between tokens")
    demo.set_defaults(run=_demo)

    scan = commands.add_parser("scan", help="moderate files offline", epilog=scanning.EXAMPLES, formatter_class=raw)
    scanning.add_arguments(scan)

    ready = ", ".join(ready_policies())
    check = commands.add_parser("check", help="validate policies and config files", epilog=f"Ready policies: {ready}.")
    check.add_argument("policies", nargs="*", metavar="POLICY", help="ready policy or file")
    check.add_argument(
        "--config", action="append", default=[], metavar="FILE", help="a config file, with all files that it names"
    )
    check.add_argument("--explain", action="store_true", help="say in sentences what each policy does")
    check.set_defaults(run=_check)

    dialects = commands.add_parser("dialects", help="list the wire formats that are moderated, with their paths")
    dialects.add_argument("--markdown", action="store_true", help="as the table in the README")
    dialects.set_defaults(run=_dialects)

    bundle = commands.add_parser("bundle", help="look after model bundles")
    tasks = bundle.add_subparsers(required=True, metavar="TASK")
    ready = ", ".join(ready_bundles())
    verify = tasks.add_parser("verify", help="checksums, labels, a self-test", epilog=f"Ready bundles: {ready}.")
    verify.add_argument("bundles", nargs="+", metavar="BUNDLE", help="a directory, or a ready bundle's name")
    verify.set_defaults(run=_verify)
    triton = tasks.add_parser("export-triton", help="write the model as a Triton model repository")
    triton.add_argument("bundle", metavar="BUNDLE", help="a directory, or a ready bundle's name")
    triton.add_argument("directory", type=Path, metavar="DIR", help="the model repository")
    triton.add_argument("--instances", type=int, default=2, help="of the model, a core each (default 2)", metavar="N")
    triton.set_defaults(run=_export_triton)
    return parser


def _add_keys(tasks: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    store = argparse.ArgumentParser(add_help=False)
    default = os.environ.get("COTGUARD_KEYS")
    store.add_argument(
        "--store",
        default=default,
        required=not default,
        help="the file of keys (default $COTGUARD_KEYS)",
        metavar="FILE",
    )
    create = tasks.add_parser("create", parents=[store], help="make a key and show it, once")
    create.add_argument("--name", required=True, help="whose it is, for you")
    create.add_argument("--role", required=True, help="a role of the callers file")
    create.add_argument("--expires", type=float, help="days until it expires (default never)", metavar="DAYS")
    for name in ("routes", "models", "dialects"):
        create.add_argument(f"--{name}", nargs="+", help=f"of the role's {name} only these", metavar="GLOB")
    for name in ("requests-per-minute", "concurrency", "tokens-per-day"):
        create.add_argument(f"--{name}", type=int, help="a lower limit than the role's", metavar="N")
    create.add_argument("--reasoning", help="hidden: reasoning is not shown, also where the role shows it")
    create.set_defaults(run=_create_key)
    tasks.add_parser("list", parents=[store], help="all keys, without their secrets").set_defaults(run=_list_keys)
    revoke = tasks.add_parser("revoke", parents=[store], help="refuse a key from now on")
    revoke.add_argument("id", help="as `cotguard keys list` tells it", metavar="ID")
    revoke.set_defaults(run=_revoke_key)


def _create_key(arguments: argparse.Namespace) -> int:
    narrowing = {name: value for name in KeyScope.model_fields if (value := getattr(arguments, name)) is not None}
    try:
        scope = KeyScope.model_validate(narrowing)
    except ValidationError as error:
        for problem in error.errors():
            option = str(problem["loc"][0]).replace("_", "-")
            print(f"--{option}: {problem['msg'].removeprefix('Value error, ')}", file=sys.stderr)  # noqa: T201
        return _USAGE_ERROR
    if arguments.expires is not None and not arguments.expires > 0:
        print("--expires: write a number of days above 0", file=sys.stderr)  # noqa: T201
        return _USAGE_ERROR
    lifetime = None if arguments.expires is None else arguments.expires * DAY
    with KeyStore(arguments.store, create=True) as store:
        key, text = store.create(arguments.name, arguments.role, scope, lifetime)
    print(_told(key), file=sys.stderr)  # noqa: T201
    print(text)  # noqa: T201
    return 0


def _list_keys(arguments: argparse.Namespace) -> int:
    with KeyStore(arguments.store) as store:
        for key in store.list():
            print(_told(key))  # noqa: T201
    return 0


def _revoke_key(arguments: argparse.Namespace) -> int:
    with KeyStore(arguments.store) as store:
        if store.revoke(arguments.id):
            return 0
    print("there is no such key, or it is revoked already; see `cotguard keys list`", file=sys.stderr)  # noqa: T201
    return 1


def _told(key: Key) -> str:
    """One line about a key."""
    parts = [key.id, f"role={key.role}", f"name={json.dumps(key.name)}", f"created={_date(key.created)}"]
    parts += [f"expires={_date(key.expires)}"] if key.expires is not None else []
    parts += [f"revoked={_date(key.revoked)}"] if key.revoked is not None else []
    narrowing = key.scope.model_dump(mode="json", exclude_defaults=True)
    return " ".join([*parts, *(f"{name}={json.dumps(value)}" for name, value in narrowing.items())])


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%MZ")


def _serve(arguments: argparse.Namespace) -> int:
    from cotguard.gateway.serve import serve  # the server's imports are not needed by the other commands

    return serve(sources_of(arguments), arguments.workers)


def _demo(arguments: argparse.Namespace) -> int:
    from cotguard.demo import run

    return run(fast=arguments.fast)


def _check(arguments: argparse.Namespace) -> int:
    if not (arguments.policies or arguments.config):
        print("name policies, or --config FILE", file=sys.stderr)  # noqa: T201
        return _USAGE_ERROR
    explained = partial(_checked_policy, explain=arguments.explain)
    checks: list[tuple[str, Callable[[str], tuple[str, Sequence[str]]]]]
    checks = [(name, explained) for name in arguments.policies]
    checks += [(name, _checked_config) for name in arguments.config]
    status = 0
    for name, check in checks:
        try:
            told, lines = check(name)
        except (PolicyError, SettingsError) as error:
            print(error, file=sys.stderr)  # noqa: T201
            status = _USAGE_ERROR
        else:
            print(f"{name}: ok ({told})", *lines, sep="\n  ")  # noqa: T201
    return status


def _checked_policy(name: str, *, explain: bool) -> tuple[str, Sequence[str]]:
    policy = load(name)
    return f"{policy.name}, {policy.mode}, digest {policy.digest}", sentences(policy) if explain else ()


def _checked_config(name: str) -> tuple[str, Sequence[str]]:
    settings = check_config(name).settings
    return f"upstreams: {', '.join(settings.pools)}; policies: {', '.join(settings.policies)}", ()


def _dialects(arguments: argparse.Namespace) -> int:
    from cotguard.dialects import listing
    from cotguard.dialects.catalogue import dialects  # reads all tables

    sys.stdout.write((listing.markdown if arguments.markdown else listing.plain)(dialects()))
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    from cotguard.classifier.verify import verify  # loads ONNX Runtime

    status = 0
    for name in arguments.bundles:
        try:
            print(f"{name}: ok ({verify(name)})")  # noqa: T201
        except BundleError as error:
            print(error, file=sys.stderr)  # noqa: T201
            status = _USAGE_ERROR
    return status


def _export_triton(arguments: argparse.Namespace) -> int:
    from cotguard.classifier.triton import export  # loads ONNX Runtime

    try:
        folder = export(arguments.bundle, arguments.directory, arguments.instances)
    except OSError as error:
        print(f"{error.filename}: {error.strerror}; choose another directory", file=sys.stderr)  # noqa: T201
        return _USAGE_ERROR
    print(f"{folder}: written; tritonserver --model-repository={arguments.directory}")  # noqa: T201
    return 0
