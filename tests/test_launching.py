"""Who started how many processes, by the variables that launchers set."""

from __future__ import annotations

import pytest

from picsnet.errors import PicsnetError, UsageError
from picsnet.launching import Processes, find_processes, launcher, others_there

TORCHRUN = {"TORCHELASTIC_RUN_ID": "none", "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4"}
SRUN = {"SLURM_STEP_ID": "0", "SLURM_NTASKS": "6", "SLURM_NNODES": "2", "SLURM_PROCID": "5"}


@pytest.mark.parametrize(
    ("variables", "options", "expected"),
    [
        ({}, (None, None), Processes(None, 1, 1)),
        ({}, (4, 2), Processes(None, 4, 2)),
        (TORCHRUN, (None, None), Processes("torchrun", 4, 2)),
        (TORCHRUN, (4, 2), Processes("torchrun", 4, 2)),
        (SRUN, (None, None), Processes("srun", 3, 2)),
        (SRUN | {"SLURM_NTASKS_PER_NODE": "3"}, (3, None), Processes("srun", 3, 2)),
    ],
)
def test_processes_are_the_launchers_or_the_options(
    variables: dict[str, str], options: tuple[int | None, int | None], expected: Processes
) -> None:
    assert find_processes(*options, variables) == expected


def test_a_job_script_without_srun_is_no_task() -> None:
    """Lightning takes it for one, and waits for the others for ever."""
    job = {key: value for key, value in SRUN.items() if key != "SLURM_STEP_ID"}
    assert launcher(job) is None
    assert launcher(SRUN | {"SLURM_NTASKS": "1"}) is None
    assert find_processes(2, None, job) == Processes(None, 2, 1)


@pytest.mark.parametrize(
    ("variables", "by"),
    [
        ({"SLURM_JOB_NAME": "bash", "SLURM_PTY_PORT": "41234"}, None),  # srun -n 6 --pty bash
        ({"SLURM_JOB_NAME": "interactive", "SLURM_STEP_ID": "4294967290"}, None),  # salloc
        ({"SLURM_JOB_NAME": "interactive"}, "srun"),  # srun in salloc's shell
        ({"SLURM_JOB_NAME": "bash"}, "srun"),  # srun bash job.sh
        ({"SLURM_JOB_NAME": "python", "SLURM_PTY_PORT": "41234"}, "srun"),
    ],
)
def test_a_shell_that_slurm_opened_is_no_task(variables: dict[str, str], by: str | None) -> None:
    assert launcher(SRUN | variables) == by


def test_what_a_gone_process_leaves_to_the_others_is_one_line() -> None:
    with pytest.raises(PicsnetError, match="another process of this run has ended"), others_there():
        raise RuntimeError("[pair.cc:561] Connection closed by peer [127.0.0.1]:21143")
    with pytest.raises(RuntimeError, match="shapes"), others_there():
        raise RuntimeError("shapes cannot be multiplied")


@pytest.mark.parametrize(
    ("variables", "options", "words"),
    [
        (TORCHRUN, (2, None), "4 processes on each of 2 nodes"),
        (SRUN, (None, 3), "leave them out"),
        (SRUN | {"SLURM_NTASKS": "5"}, (None, None), "--ntasks-per-node"),
        (TORCHRUN | {"WORLD_SIZE": "7"}, (None, None), "--nproc-per-node"),
        ({}, (0, None), "1 or more"),
    ],
)
def test_what_does_not_agree_is_refused(
    variables: dict[str, str], options: tuple[int | None, int | None], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        find_processes(*options, variables)
