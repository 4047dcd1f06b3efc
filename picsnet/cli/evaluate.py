"""``picsnet evaluate``: codecs at several settings over a dataset."""

from __future__ import annotations

import argparse
import sys

NAME = "evaluate"
HELP = "code a dataset with several codecs and measure what comes back"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument(
        "--config", required=True, help="a YAML file, or its name under configs/ (eval_kodak)"
    )
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="e.g. dataset.limit=2, devices=4, 'dataset.folder=[photos/]'",
    )


def run(args: argparse.Namespace) -> int:
    """Evaluate, or go on where it stopped; 1 if a picture or codec failed."""
    from picsnet.evaluation.config import load_evaluation

    config = load_evaluation(args.config, args.overrides)
    from picsnet.evaluation.runner import evaluate

    report = evaluate(config, args.debug)
    if report is None:  # one of several processes, not the first
        return 0
    print(_table(report.summary))
    names_by_reason: dict[str, list[str]] = {}
    for name, reason in report.summary["left_out"].items():
        names_by_reason.setdefault(reason, []).append(name)
    for reason, names in names_by_reason.items():
        print(f"left out: {', '.join(names)}: {reason}", file=sys.stderr)
    for warning in report.summary["warnings"]:
        print(f"note: {warning}", file=sys.stderr)
    for failure in report.failures:
        where = ", ".join(part for part in (failure.codec, failure.setting) if part)
        print(f"failed: {failure.picture} {where}: {failure.reason}", file=sys.stderr)
    print(f"rows, pictures and summary are in {report.folder}")
    return 1 if report.failures else 0


def _table(summary: dict[str, object]) -> str:
    from picsnet.evaluation.summary import markdown

    return markdown(summary)
