"""``picsnet wandb-workspace``: a saved W&B workspace for trainings and evaluations."""

from __future__ import annotations

import argparse
import json

from picsnet.errors import UsageError

NAME = "wandb-workspace"
HELP = "save a W&B workspace with the panels of a project"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument("project", metavar="ENTITY/PROJECT", help="whose, and which")
    parser.add_argument(
        "--dry-run", action="store_true", help="print what it would hold; no account is needed"
    )


def run(args: argparse.Namespace) -> int:
    """Save the workspace and print its address."""
    entity, slash, project = args.project.partition("/")
    if not (entity and slash and project) or "/" in project:
        raise UsageError(f"{args.project}: must be ENTITY/PROJECT, e.g. my-team/picsnet")
    from picsnet.evaluation.workspace import build, describe, save

    workspace = build(entity, project)
    print(json.dumps(describe(workspace), indent=1) if args.dry_run else save(workspace))
    return 0
