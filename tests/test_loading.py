"""Loader processes end when what they load for does."""

from __future__ import annotations

import subprocess
import sys

SCRIPT = """
from torch.utils.data import DataLoader, Dataset
from datamodules.loading import start_worker

class Broken(Dataset):
    def __len__(self):
        return 4
    def __getitem__(self, index):
        raise ValueError("this one")

kept = iter(DataLoader(Broken(), num_workers=1, worker_init_fn=start_worker))
next(kept)
"""


def test_an_error_that_nobody_expects_ends_all_processes() -> None:
    # Python ends what is left with one SIGTERM each, and waits for it without a limit.
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=100, check=False
    )
    assert done.returncode == 1
    assert "ValueError: this one" in done.stderr
