"""How many processes share a run, and who starts them: torchrun, srun, or Lightning itself.

Under torchrun and srun the launcher's own variables say it; elsewhere the options do.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol

from picsnet.errors import ConfigError, PicsnetError, UsageError, in_one_line

if TYPE_CHECKING:
    from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment

PATIENCE = timedelta(days=30)
"""How long a process waits for the others. Shares end hours apart, where torch's half hour is made
for steps of training; a process that dies is noticed at once, by its closed connection."""
BACKEND = "gloo"
"""Processes tell each other that they are done, and no more: that needs no GPU's network."""
SPREAD = ("auto", "ddp")
"""Strategies that put a process on each device and leave the rest to us."""

SHELLS = ("bash", "interactive")
"""Names of jobs that SLURM opens a shell for, unless the user gives another."""
INTERACTIVE_STEPS = ("4294967290", "interactive")
"""SLURM's number for the step that salloc's shell runs in (0xfffffffa)."""


class Places(Protocol):
    """Where a configuration has Lightning run it."""

    accelerator: str
    devices: str
    num_nodes: int
    strategy: str


@contextlib.contextmanager
def found_here(places: Places, prefix: str = "") -> Iterator[None]:
    """Around the making of a Trainer, which raises what it likes of what a machine has not.

    Args:
        places: asked for.
        prefix: of their keys, with its dot.

    Raises:
        ConfigError: Lightning cannot have them.
    """
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    try:
        yield
    except (
        ImportError,  # of an accelerator whose package is not installed
        MisconfigurationException,
        RuntimeError,
        TypeError,
        ValueError,
    ) as error:
        raise ConfigError(
            f"{prefix}accelerator={places.accelerator} devices={places.devices} "
            f"num_nodes={places.num_nodes} strategy={places.strategy}: not on this machine "
            f"({in_one_line(error)}); leave them out to have what it has"
        ) from None


@contextlib.contextmanager
def others_there() -> Iterator[None]:
    """Around what several processes do together: where one has ended, it has said why, and the
    others have no more to say than that.

    Raises:
        PicsnetError: another process is gone.
    """
    try:
        yield
    except RuntimeError as error:  # of gloo; it has no class of its own
        if not re.search("closed by peer|reset by peer|Broken pipe", str(error)):
            raise
        raise PicsnetError(
            "another process of this run has ended, or cannot be reached; see what it said, and "
            "run the same command again to go on"
        ) from None


@dataclass(frozen=True)
class Processes:
    """Processes that share a run.

    Attributes:
        launcher: "torchrun" or "srun" where that started them, else None: Lightning does.
        per_node: of them on each node, one a device.
        nodes: machines.
    """

    launcher: str | None
    per_node: int
    nodes: int

    @property
    def count(self) -> int:
        """Of all."""
        return self.per_node * self.nodes

    def environment(self) -> ClusterEnvironment:
        """Lightning's plugin for the launcher, named: it would also take a job script without srun
        for one of several tasks, and wait for the others for ever."""
        from lightning.fabric.plugins.environments.lightning import LightningEnvironment
        from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
        from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment

        if self.launcher == "torchrun":
            return TorchElasticEnvironment()
        if self.launcher == "srun":
            # Lightning refuses a job without it, though it can be worked out.
            os.environ.setdefault("SLURM_NTASKS_PER_NODE", str(self.per_node))
            return SLURMEnvironment(auto_requeue=False)
        return LightningEnvironment()

    def trainer_options(self, strategy: str = "auto") -> dict[str, Any]:
        """For a Trainer: its devices, num_nodes, strategy and plugins."""
        from lightning.pytorch.strategies import DDPStrategy

        return self._options(strategy, DDPStrategy)

    def fabric_options(self) -> dict[str, Any]:
        """For a Fabric: the same."""
        from lightning.fabric.strategies.ddp import DDPStrategy

        return self._options("auto", DDPStrategy)

    def _options(self, strategy: str, spread: Callable[..., Any]) -> dict[str, Any]:
        chosen: Any = strategy
        if self.count > 1 and strategy in SPREAD:
            chosen = spread(process_group_backend=BACKEND, timeout=PATIENCE)
        return {
            "devices": self.per_node,
            "num_nodes": self.nodes,
            "strategy": chosen,
            "plugins": [self.environment()],
        }


def launcher(environment: Mapping[str, str] = os.environ) -> str | None:
    """What started this process as one of several: "torchrun", "srun", or None.

    A job script that calls python without srun is none of several tasks, whatever its job asked
    for: only srun sets the variables of a step. A shell that SLURM opened is a step, but what runs
    in it is none of the step's tasks.
    """
    if "TORCHELASTIC_RUN_ID" in environment:
        return "torchrun"
    step = environment.get("SLURM_STEP_ID", environment.get("SLURM_STEPID"))
    if step is None or _is_shell(step, environment):
        return None
    if int(environment.get("SLURM_NTASKS", "1")) > 1:
        return "srun"
    return None


def _is_shell(step: str, environment: Mapping[str, str]) -> bool:
    """Whether a step is a shell, opened by salloc or by ``srun --pty bash``.

    The job's name alone does not say so: srun's tasks inherit it of the salloc that they are in.
    """
    named = environment.get("SLURM_JOB_NAME") in SHELLS
    terminal = any(name in environment for name in ("SLURM_PTY_PORT", "SLURM_PTY_WIN_COL"))
    return step in INTERACTIVE_STEPS or (named and terminal)


def find_processes(
    devices: int | None, nodes: int | None, environment: Mapping[str, str] = os.environ
) -> Processes:
    """The processes of this run.

    Args:
        devices: processes on each node as options say it; None where they do not.
        nodes: as options say it; None where they do not.
        environment: variables.

    Raises:
        UsageError: the options do not agree with the launcher, or make no sense.
    """
    for name, number in (("devices", devices), ("nodes", nodes)):
        if number is not None and number < 1:
            raise UsageError(f"{number} {name} cannot work; give 1 or more")
    by = launcher(environment)
    if by is None:
        return Processes(None, devices or 1, nodes or 1)
    if by == "torchrun":
        per_node = int(environment["LOCAL_WORLD_SIZE"])
        count, mend = int(environment["WORLD_SIZE"]), "--nproc-per-node on every node"
        machines = count // per_node
    else:
        machines = int(environment.get("SLURM_NNODES", "1"))
        count, mend = int(environment["SLURM_NTASKS"]), "--ntasks-per-node"
        per_node = int(environment.get("SLURM_NTASKS_PER_NODE", count // machines))
    if per_node * machines != count:
        raise UsageError(
            f"{by} started {count} processes on {machines} nodes, not as many on each; "
            f"start it with one {mend}"
        )
    if devices not in (None, per_node) or nodes not in (None, machines):
        raise UsageError(
            f"{by} started {per_node} processes on each of {machines} nodes, but the options say "
            f"{devices or per_node} on {nodes or machines}; leave them out"
        )
    return Processes(by, per_node, machines)
