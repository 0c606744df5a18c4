"""The command line: ``serve``, ``demo``, ``scan``, ``check``, ``bundle``."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from cotguard import __version__
from cotguard.classifier.bundle import DEFAULT, NONE, BundleError, ready_bundles
from cotguard.detectors.contract import Detector, RequestFacts
from cotguard.detectors.registry import build
from cotguard.gateway.settings import Settings, SettingsError, load_settings
from cotguard.moderation.exchange import Exchange, ModerationFault
from cotguard.moderation.json_view import JsonView
from cotguard.moderation.view import PlainView
from cotguard.policy import Policy, PolicyError, load, ready_policies
from cotguard.spans import ChannelKind

__all__ = ["main"]

_USAGE_ERROR = 2
_READ_CHARS = 65_536

_SERVE_EXAMPLES = """\
examples:
  cotguard serve --upstream http://127.0.0.1:8000
  cotguard serve --upstream https://models.example.com --listen 0.0.0.0:8080 --policy strict
  COTGUARD_UPSTREAM=http://127.0.0.1:8000 cotguard serve --config cotguard.yaml

Then point your client's base URL at http://127.0.0.1:8080/v1. A flag wins over COTGUARD_* in the environment,
which wins over the config file (lines of `name: value`). Compiled rules are kept in $COTGUARD_CACHE (default
~/.cache/cotguard, empty for nowhere), which makes the next start faster."""

_SCAN_EXAMPLES = """\
examples:
  echo 'mail ann.lee@example.com' | cotguard scan
  cotguard scan --policy secrets-only --channel reasoning trace.txt
  cotguard scan --jsonl texts.jsonl    # lines {"id", "text"} -> {"id", "redacted", "spans"}"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit status: 0, 1 for a fault, 2 for wrong usage or input."""
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except (PolicyError, SettingsError, BundleError) as error:
        print(error, file=sys.stderr)  # noqa: T201
        return _USAGE_ERROR
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cotguard",
        description="Moderates reasoning traces and answers of language models while they stream.",
        epilog="Start with `cotguard demo`. Each command has its own --help with examples.",
    )
    parser.add_argument("--version", action="version", version=f"cotguard {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    raw = argparse.RawDescriptionHelpFormatter

    serve = commands.add_parser("serve", help="run the proxy", epilog=_SERVE_EXAMPLES, formatter_class=raw)
    for name, field in Settings.model_fields.items():
        default = "required" if field.is_required() else f"default {field.default!r}"
        serve.add_argument("--" + name.replace("_", "-"), help=f"{field.description} ({default})", metavar="VALUE")
    serve.add_argument("--config", help="a YAML file with the settings above", metavar="FILE")
    serve.add_argument("--workers", type=int, default=1, help="processes that share the port (default 1)", metavar="N")
    serve.set_defaults(run=_serve)

    demo = commands.add_parser("demo", help="watch a moderated stream beside the raw one; needs nothing else")
    demo.add_argument("--fast", action="store_true", help="do not wait between tokens")
    demo.set_defaults(run=_demo)

    scan = commands.add_parser("scan", help="moderate text offline", epilog=_SCAN_EXAMPLES, formatter_class=raw)
    scan.add_argument("--policy", default="balanced", help="ready policy or file (default balanced)")
    kinds = [kind.value for kind in ChannelKind]
    scan.add_argument("--channel", default="output", choices=kinds, help="what the text is (default output)")
    scan.add_argument(
        "--bundle", default=DEFAULT, help=f"classifier: a ready bundle, a directory, or {NONE} (default {DEFAULT})"
    )
    scan.add_argument("--jsonl", action="store_true", help="one JSON object a line, in and out")
    scan.add_argument("file", nargs="?", default="-", help="a file, or - for standard input")
    scan.set_defaults(run=_scan)

    ready = ", ".join(ready_policies())
    check = commands.add_parser("check", help="validate policies", epilog=f"Ready policies: {ready}.")
    check.add_argument("policies", nargs="+", metavar="POLICY", help="ready policy or file")
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


def _serve(arguments: argparse.Namespace) -> int:
    from cotguard.gateway.serve import serve  # the server's imports are not needed by the other commands

    flags = {name: getattr(arguments, name) for name in Settings.model_fields}
    settings = load_settings(flags, os.environ, arguments.config)
    return serve(settings, arguments.workers)


def _demo(arguments: argparse.Namespace) -> int:
    from cotguard.demo import run

    return run(fast=arguments.fast)


def _check(arguments: argparse.Namespace) -> int:
    status = 0
    for name in arguments.policies:
        try:
            policy = load(name)
        except PolicyError as error:
            print(error, file=sys.stderr)  # noqa: T201
            status = _USAGE_ERROR
        else:
            print(f"{name}: ok ({policy.name}, {policy.mode}, digest {policy.digest})")  # noqa: T201
    return status


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


def _scan(arguments: argparse.Namespace) -> int:
    policy = load(arguments.policy)
    detectors = build(policy, arguments.bundle)
    kind = ChannelKind(arguments.channel)
    try:
        source = sys.stdin if arguments.file == "-" else Path(arguments.file).open(encoding="utf-8")  # noqa: SIM115
    except OSError as error:
        print(f"{arguments.file}: {error.strerror}", file=sys.stderr)  # noqa: T201
        return _USAGE_ERROR
    with source:
        if arguments.jsonl:
            return _scan_lines(source, policy, detectors, kind)
        return _scan_text(source, policy, detectors, kind)


def _scan_text(source: IO[str], policy: Policy, detectors: Sequence[Detector], kind: ChannelKind) -> int:
    exchange = Exchange(policy, detectors, RequestFacts(), os.urandom(32))
    lane = exchange.lane(0)
    lane.open(kind, JsonView() if kind is ChannelKind.TOOL_CALL else PlainView(kind))
    try:
        while text := source.readline(_READ_CHARS):
            lane.feed(kind, text)
            for emission in lane.take():
                sys.stdout.write(emission.text)
            sys.stdout.flush()
        lane.finish()
    except ModerationFault as fault:
        print(f"scan stopped: {fault}", file=sys.stderr)  # noqa: T201
        return 1
    for emission in lane.take():
        sys.stdout.write(emission.text)
    return 0


def _scan_lines(source: IO[str], policy: Policy, detectors: Sequence[Detector], kind: ChannelKind) -> int:
    key = os.urandom(32)
    for number, line in enumerate(source, 1):
        try:
            record = json.loads(line)
            text = record["text"]
            if not isinstance(text, str):
                raise TypeError
        except (ValueError, KeyError, TypeError):
            print(f'line {number}: write a JSON object with "id" and "text"', file=sys.stderr)  # noqa: T201
            return _USAGE_ERROR
        exchange = Exchange(policy, detectors, RequestFacts(), key, record=True)
        lane = exchange.lane(0)
        lane.open(kind, JsonView() if kind is ChannelKind.TOOL_CALL else PlainView(kind))
        try:
            lane.feed(kind, text)
            lane.finish()
        except ModerationFault as fault:
            print(f"line {number}: {fault}", file=sys.stderr)  # noqa: T201
            return 1
        spans = [
            {
                "start": span.start,
                "end": span.end,
                "entity": span.entity,
                "score": span.score,
                "detector": span.detector,
                "action": action.value,
            }
            for span, action in sorted(exchange.spans, key=lambda found: (found[0].start, found[0].end))
        ]
        redacted = "".join(emission.text for emission in lane.take())
        print(json.dumps({"id": record.get("id"), "redacted": redacted, "spans": spans}))  # noqa: T201
    return 0
