"""Training data is a function of seed and position alone."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data.distributed import DistributedSampler

from datamodules.maps import (
    FixedCropDataset,
    MapDataSettings,
    SketchMapDataModule,
    SketchMapDataset,
    list_maps,
    split_maps,
)
from datamodules.sampling import PositionSampler, epoch_permutation_index, position_seed
from picsnet.errors import DataError
from picsnet.images import save_png


def settings(**changes: Any) -> MapDataSettings:
    values = {"crop": 32, "batch_size": 2, "workers": 0, "seed": 3, "total_steps": 5}
    return MapDataSettings(**{**values, **changes})


@pytest.fixture
def maps(tmp_path: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    for index, size in enumerate([(40, 60), (64, 48), (33, 33), (90, 40), (70, 70), (20, 100)]):
        save_png(rng.integers(1, 256, size, dtype=np.uint8), tmp_path / "maps" / f"{index}.png")
    return list_maps(tmp_path / "maps")


def test_seed_is_an_int_that_numpy_takes_and_no_two_are_alike() -> None:
    seeds = {position_seed(seed, position) for seed in range(-2, 3) for position in range(5)}
    assert len(seeds) == 25
    draws = {np.random.default_rng(seed).integers(2**62) for seed in seeds}
    assert len(draws) == 25


def test_data_order_is_a_promise() -> None:
    # A run that is resumed under a newer version must see the data it would have seen.
    order = [epoch_permutation_index(7, position, 10) for position in range(12)]
    assert "".join(map(str, order)) == "603958217484"
    assert np.random.default_rng(position_seed(7, 11)).integers(1000) == 959


def test_each_epoch_is_another_permutation() -> None:
    epochs = [[epoch_permutation_index(1, 8 * e + i, 8) for i in range(8)] for e in range(3)]
    assert all(sorted(epoch) == list(range(8)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]
    assert epochs[0] != [epoch_permutation_index(2, i, 8) for i in range(8)]


@pytest.mark.parametrize(("world_size", "batch_size"), [(1, 6), (2, 3), (3, 2)])
def test_processes_share_the_positions_of_one(world_size: int, batch_size: int) -> None:
    ranks = [
        list(
            PositionSampler(batch_size=batch_size, total_steps=4, rank=rank, world_size=world_size)
        )
        for rank in range(world_size)
    ]
    for step in range(4):
        seen = [p for rank in ranks for p in rank[step * batch_size : (step + 1) * batch_size]]
        assert seen == list(range(step * 6, step * 6 + 6))


def test_resumed_sampler_goes_on_and_keeps_the_length_of_the_run() -> None:
    whole = PositionSampler(batch_size=3, total_steps=7, rank=1, world_size=2)
    late = PositionSampler(batch_size=3, total_steps=7, start_step=4, rank=1, world_size=2)
    assert list(late) == list(whole)[4 * 3 :]
    assert len(late) == len(whole) == 21


def batches(maps: list[Path], **changes: Any) -> list[Tensor]:
    loader = SketchMapDataModule(maps[1:], maps[:1], settings(**changes)).train_dataloader()
    return list(loader)


def test_batches_do_not_depend_on_workers_or_the_global_generators(maps: list[Path]) -> None:
    torch.manual_seed(1)
    alone = batches(maps)
    torch.manual_seed(2)
    np.random.seed(2)
    with_workers = batches(maps, workers=2)
    assert len(alone) == len(with_workers) == 5
    assert alone[0].shape == (2, 1, 32, 32) and alone[0].dtype == torch.float32
    for left, right in zip(alone, with_workers, strict=True):
        assert torch.equal(left, right)
    assert not torch.equal(alone[0], batches(maps, seed=4)[0])


def test_loader_leaves_the_global_generator_alone(maps: list[Path]) -> None:
    state = torch.get_rng_state()
    batches(maps)
    assert torch.equal(state, torch.get_rng_state())


def test_the_same_position_gives_other_crops_in_other_epochs(maps: list[Path]) -> None:
    data = SketchMapDataset(maps[:1], settings(empty_probability=0.0))
    assert not torch.equal(data[0], data[1])
    assert torch.equal(data[1], SketchMapDataset(maps[:1], settings(empty_probability=0.0))[1])


def test_empty_crops_come_as_often_as_asked(maps: list[Path]) -> None:
    data = SketchMapDataset(maps, settings(empty_probability=0.25))
    black = sum(not data[position].any() for position in range(400))
    assert 70 <= black <= 130
    data = SketchMapDataset(maps, settings(empty_probability=0.0))
    assert all(data[position].any() for position in range(50))


def test_strokes_on_black_come_as_often_as_asked(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(1, 256, (64, 64), dtype=np.uint8)
    save_png(noise, tmp_path / "noise.png")
    paths = [tmp_path / "noise.png"]
    data = SketchMapDataset(paths, settings(empty_probability=0.1, stroke_probability=0.25))
    without = SketchMapDataset(paths, settings(empty_probability=0.1, stroke_probability=0.0))
    # What else is drawn does not change with them.
    changed = [n for n in range(400) if not torch.equal(data[n], without[n])]
    assert 70 <= len(changed) <= 130
    strokes = [data[position] for position in changed]
    assert len({crop.numpy().tobytes() for crop in strokes}) == len(strokes)
    black = [float((crop == 0).float().mean()) for crop in strokes]
    assert min(black) > 0.1 and np.median(black) > 0.7 and max(black) < 1


def test_crops_lie_in_the_map_and_all_flips_occur(tmp_path: Path) -> None:
    ramp = np.arange(48 * 48, dtype=np.uint16).reshape(48, 48)
    pixels = (ramp % 48 + ramp // 48 * 3).astype(np.uint8)
    save_png(pixels, tmp_path / "ramp.png")
    data = SketchMapDataset([tmp_path / "ramp.png"], settings(scale_min=1.0, empty_probability=0.0))
    windows = {
        pixels[top : top + 32, left : left + 32][::up, ::across].tobytes(): (up, across)
        for top in range(17)
        for left in range(17)
        for up in (1, -1)
        for across in (1, -1)
    }
    found = [windows[(data[i][0] * 255).round().byte().numpy().tobytes()] for i in range(60)]
    assert set(found) == {(1, 1), (1, -1), (-1, 1), (-1, -1)}


def test_smaller_scales_show_more_of_the_map(tmp_path: Path) -> None:
    # 64 bright pixels; area averages darken the peaks and lose none.
    pixels = np.zeros((64, 64), np.uint8)
    pixels[::8, ::8] = 255
    save_png(pixels, tmp_path / "dots.png")
    halved = SketchMapDataset(
        [tmp_path / "dots.png"],
        settings(scale_min=0.5, scale_max=0.5, empty_probability=0.0),
    )[0]
    assert halved.max() == pytest.approx(64 / 255) and (halved > 0).sum() == 64


def test_scaling_stops_where_the_map_would_be_smaller_than_the_crop(tmp_path: Path) -> None:
    save_png(np.full((40, 100), 200, np.uint8), tmp_path / "flat.png")
    data = SketchMapDataset(
        [tmp_path / "flat.png"],
        settings(scale_min=0.1, scale_max=0.1, empty_probability=0.0),
    )
    assert all((data[i] * 255 == 200).all() for i in range(10))


def test_maps_smaller_than_the_crop_are_filled_with_black(tmp_path: Path) -> None:
    save_png(np.full((20, 100), 200, np.uint8), tmp_path / "low.png")
    fixed = FixedCropDataset([tmp_path / "low.png"], 32)[0]
    assert (fixed[0, :20] * 255 == 200).all() and not fixed[0, 20:].any()
    data = SketchMapDataset([tmp_path / "low.png"], settings(empty_probability=0.0))
    assert all((data[i] > 0).sum() == 20 * 32 for i in range(10))


def test_validation_takes_the_middle(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70), dtype=np.uint8)
    save_png(pixels, tmp_path / "p.png")
    fixed = FixedCropDataset([tmp_path / "p.png"], 32)
    assert len(fixed) == 1
    np.testing.assert_array_equal((fixed[0][0] * 255).numpy(), pixels[9:41, 19:51])


def test_cache_limit_changes_memory_not_crops(maps: list[Path]) -> None:
    plenty, none = (SketchMapDataset(maps, settings(cache_bytes=limit)) for limit in (2**20, 0))
    before = [plenty[position] for position in range(12)]
    assert all(torch.equal(none[position], before[position]) for position in range(12))
    for path in maps:
        path.unlink()
    assert torch.equal(plenty[3], before[3])
    with pytest.raises(DataError):
        for position in range(12):
            none[position]


def test_split_is_fixed_disjoint_and_blind_to_order(maps: list[Path]) -> None:
    train, val = split_maps(maps, 2, seed=5)
    assert len(val) == 2 and sorted(train + val) == sorted(maps)
    assert split_maps([*reversed(maps), maps[0]], 2, seed=5) == (train, val)
    assert any(split_maps(maps, 2, seed=s) != (train, val) for s in range(5))
    with pytest.raises(DataError, match=r"6 maps cannot spare 6.*val_count"):
        split_maps(maps, 6, seed=5)


def test_no_maps(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        list_maps(tmp_path / "none")
    with pytest.raises(DataError, match="no files of these kinds"):
        list_maps(tmp_path)
    with pytest.raises(DataError, match="no maps"):
        SketchMapDataModule([], [tmp_path / "p.png"], settings())


@pytest.mark.parametrize("workers", [0, 1])
def test_broken_map_is_named_in_one_line(maps: list[Path], workers: int) -> None:
    maps[2].write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"2\.png: not a picture") as caught:
        batches(maps, workers=workers)
    assert "\n" not in str(caught.value)


class Recorder(L.LightningModule):
    """Keeps the batches it is given, and counts them as the trained modules do."""

    def __init__(self, stop_at: int | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.automatic_optimization = False
        self.batches_seen, self.stop_at = 0, stop_at
        self.seen: list[Tensor] = []

    def training_step(self, batch: Tensor, batch_idx: int) -> None:
        self.seen.append(batch)
        optimizer = self.optimizers()
        self.manual_backward(self.weight * batch.mean())
        optimizer.step()  # type: ignore[union-attr]
        self.batches_seen += 1
        self.trainer.should_stop = self.batches_seen == self.stop_at

    def validation_step(self, batch: Tensor, batch_idx: int) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["batches_seen"] = self.batches_seen

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.batches_seen = checkpoint["batches_seen"]


def fit(
    data: L.LightningDataModule, root: Path, module: Recorder, resume: Path | None = None
) -> L.Trainer:
    """Six steps of data that are made for so many."""
    trainer = L.Trainer(
        accelerator="cpu",
        max_steps=6,
        val_check_interval=2,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        default_root_dir=root,
    )
    trainer.fit(module, datamodule=data, ckpt_path=resume, weights_only=True)
    return trainer


def test_a_trainer_of_ones_own_leaves_the_order_alone(maps: list[Path]) -> None:
    """Of several processes Lightning replaces any sampler but this kind: by a shuffled share of
    the positions, which are one process's already."""
    loader = SketchMapDataModule(maps[1:], maps[:1], settings()).train_dataloader()
    assert isinstance(loader.sampler, DistributedSampler)
    loader.sampler.set_epoch(1)  # as a Trainer does
    first = list(itertools.islice(loader.sampler, 4))
    assert first == [0, 1, 2, 3]


def run(maps: list[Path], root: Path, module: Recorder, resume: Path | None = None) -> L.Trainer:
    data = SketchMapDataModule(maps[1:], maps[:1], settings(total_steps=6))
    return fit(data, root, module, resume)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_interrupted_run_sees_the_batches_of_an_uninterrupted_one(
    maps: list[Path], tmp_path: Path
) -> None:
    whole = Recorder()
    run(maps, tmp_path, whole)
    first = Recorder(stop_at=3)
    run(maps, tmp_path, first).save_checkpoint(tmp_path / "last.ckpt")
    second = Recorder()
    run(maps, tmp_path, second, tmp_path / "last.ckpt")
    assert (len(whole.seen), len(first.seen), len(second.seen)) == (6, 3, 3)
    for left, right in zip(whole.seen, first.seen + second.seen, strict=True):
        assert torch.equal(left, right)
