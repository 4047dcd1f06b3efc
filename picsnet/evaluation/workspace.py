"""A saved W&B workspace for a project of trainings and evaluations, in code."""

from __future__ import annotations

import os
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit

from picsnet.errors import UsageError, in_one_line
from picsnet.evaluation.measures import MEASURES

NAME = "picsnet: rate and distortion"


def build(entity: str, project: str) -> Any:
    """The workspace, a ``wandb_workspaces.workspaces.Workspace``; nothing is sent.

    Raises:
        UsageError: wandb-workspaces is not installed.
    """
    try:
        panels: Any = import_module("wandb_workspaces.reports.v2")
        workspaces: Any = import_module("wandb_workspaces.workspaces")
    except ImportError:
        raise UsageError(
            "a workspace needs wandb-workspaces; pip install 'picsnet[workspaces]'"
        ) from None

    def curve(title: str, *names: str, x: str = "Step", **options: Any) -> Any:
        return panels.LinePlot(title=title, x=x, y=list(names), **options)

    charts = [
        panels.CustomChart(
            query={"summaryTable": {"tableKey": f"rd/{name}_table"}},
            chart_name="wandb/lineseries/v0",
            chart_fields={"step": "step", "lineKey": "lineKey", "lineVal": "lineVal"},
            chart_strings={"title": measure.label, "xname": "bits per pixel"},
        )
        for name, measure in MEASURES.items()
    ]
    sections = {
        "Evaluation: rate against each measure": charts,
        "Evaluation: tables": [
            panels.WeavePanelSummaryTable(table_name=name)
            for name in ("points", "pictures", "rows")
        ],
        "Training: rate and distortion": [
            curve("distortion against bpp", "rd/distortion", x="rd/bpp", log_x=True),
            curve("coded bpp of validation maps", "val/coded_bpp", "val/bpp"),
            curve("validation distortion", "val/distortion"),
            curve("validation loss", "val/loss"),
        ],
        "Training: curves": [
            curve("loss", "train/loss"),
            curve("distortion", "train/distortion"),
            curve("bpp of each stream", "train/bpp_y", "train/bpp_z"),
            curve("auxiliary loss", "train/aux_loss"),
            curve("crops a second", "train/crops_per_second"),
        ],
        "Training: maps before and after": [panels.MediaBrowser(media_keys=["maps"])],
    }
    return workspaces.Workspace(
        entity=entity,
        project=project,
        name=NAME,
        sections=[
            workspaces.Section(name=name, panels=some, is_open=True)
            for name, some in sections.items()
        ],
        # A study's runs share a group; within it they differ by lambda.
        runset_settings=workspaces.RunsetSettings(
            groupby=[workspaces.Metric("Group"), workspaces.Config("lmbda")]
        ),
    )


def describe(workspace: Any) -> dict[str, Any]:
    """What is in a workspace: sections, and their panels by kind and title."""
    return {
        "name": workspace.name,
        "project": f"{workspace.entity}/{workspace.project}",
        "sections": {
            section.name: [_describe_panel(panel) for panel in section.panels]
            for section in workspace.sections
        },
    }


def _describe_panel(panel: Any) -> dict[str, Any]:
    strings = getattr(panel, "chart_strings", {})
    found = {
        "kind": type(panel).__name__,
        "title": getattr(panel, "title", None) or strings.get("title"),
        "shows": getattr(panel, "y", None)
        or getattr(panel, "media_keys", None)
        or getattr(panel, "table_name", None)
        or getattr(panel, "query", {}).get("summaryTable", {}).get("tableKey"),
    }
    return {
        key: [str(getattr(one, "name", one)) for one in value] if isinstance(value, list) else value
        for key, value in found.items()
    }


def save(workspace: Any) -> str:
    """Save it on the server; returns its address.

    Raises:
        UsageError: there is no key, or the server refuses.
    """
    if not _has_key():
        raise UsageError(
            "saving a workspace needs a W&B account; log in (wandb login) or set WANDB_API_KEY, or "
            "look at it with --dry-run"
        )
    try:
        workspace.save()
    except Exception as error:  # the client raises what its transport does
        reason = in_one_line(error)
        raise UsageError(
            f"{workspace.entity}/{workspace.project}: W&B does not take the workspace ({reason}); "
            "check the names, your rights and WANDB_BASE_URL"
        ) from None
    return str(workspace.url)


def _has_key() -> bool:
    if os.environ.get("WANDB_API_KEY"):
        return True
    from requests.utils import get_netrc_auth

    base = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")
    return get_netrc_auth(f"https://{urlsplit(base).netloc}") is not None
