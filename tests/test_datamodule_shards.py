"""Training from shards is a function of seed and position alone, wherever the shards lie."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import numpy as np
import pytest
import torch
from filelock import FileLock
from torch import Tensor

from datamodules.maps import MapDataSettings, SketchMapDataModule, list_maps, split_maps
from datamodules.sampling import WindowOrder, epoch_permutation_index
from datamodules.shard_cache import ShardCache
from datamodules.shards import (
    MapPlace,
    ShardMapDataModule,
    ShardMapDataset,
    ShardSettings,
    ShardSplit,
    list_shards,
    load_place,
    split_shards,
)
from picsnet.buckets import FolderStore
from picsnet.errors import DataError
from picsnet.images import save_png
from picsnet.shards import Shard
from picsnet.sketch.shards import check_output, write_shards
from tests.local_bucket import serve
from tests.test_datamodule_maps import Recorder, fit

MAPS = 24
KEPT = (".bin", ".room")


def settings(**changes: Any) -> MapDataSettings:
    values = {"crop": 32, "batch_size": 2, "workers": 0, "seed": 3, "total_steps": 30}
    return MapDataSettings(**{**values, **changes})


@pytest.fixture(scope="module")
def maps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Maps of noise: no two crops are alike, and PNG cannot make them smaller."""
    folder = tmp_path_factory.mktemp("maps")
    rng = np.random.default_rng(0)
    for index in range(MAPS):
        save_png(rng.integers(1, 256, (40, 50), dtype=np.uint8), folder / f"{index:02d}.png")
    return folder


@pytest.fixture(scope="module")
def packed(maps: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight shards of three maps."""
    folder = tmp_path_factory.mktemp("shards")
    pack(maps, str(folder))
    assert len(list(folder.glob("*.bin"))) == 8
    return folder


def pack(maps: Path, url: str, shard_bytes: int = 5_000) -> None:
    store = check_output(url, shard_bytes)
    write_shards(list_maps(maps), store, shard_bytes, {}, progress=False)


def how(cache: Path, shards: list[Shard], window: int) -> ShardSettings:
    """With a cache that holds two windows and not a byte more."""
    sizes = sorted((shard.size for shard in shards), reverse=True)
    return ShardSettings(cache, sum(sizes[: 2 * window] if window else sizes), window)


def split_of(url: str, val_count: int = 2) -> ShardSplit:
    return split_shards(list_shards([url]), val_count, seed=3)


def datamodule(url: str, cache: Path, window: int = 2, **changes: Any) -> ShardMapDataModule:
    split = split_of(url)
    return ShardMapDataModule(split, settings(**changes), how(cache, split.shards, window))


def batches(module: L.LightningDataModule) -> list[Tensor]:
    return list(module.train_dataloader())


def same(left: list[Tensor], right: list[Tensor]) -> bool:
    return len(left) == len(right) and all(map(torch.equal, left, right))


def test_order_is_a_promise() -> None:
    # A run that is resumed under a newer version must see the data it would have seen.
    order = WindowOrder([2, 3, 1, 2], window=2, seed=7)
    places = [order.place(position) for position in range(10)]
    assert " ".join(f"{p.shard}{p.item}" for p in places) == "12 11 30 10 31 01 00 20 00 31"
    assert [p.window for p in places] == [0, 0, 0, 0, 0, 1, 1, 1, 2, 2]


@pytest.mark.parametrize("window", [1, 3, 5, 20])
def test_each_pass_sees_each_item_once_and_a_window_few_shards(window: int) -> None:
    counts = np.random.default_rng(1).integers(0, 9, 20).tolist()
    order = WindowOrder(counts, window, seed=2)
    total = sum(counts)
    passes = [[order.place(e * total + i) for i in range(total)] for e in range(3)]
    items = sorted((shard, item) for shard, n in enumerate(counts) for item in range(n))
    orders = [[place[1:] for place in one] for one in passes]
    assert all(sorted(one) == items for one in orders)
    assert orders[0] != orders[1] != orders[2]
    flat = [place for one in passes for place in one]
    assert all(place.shard in order.shards_of(place.window) for place in flat)
    assert all(len(order.shards_of(w)) <= window for w in range(3 * order.windows))
    assert [p.window for p in flat] == sorted(p.window for p in flat)
    assert flat[-1].window == 3 * order.windows - 1
    # Any position by itself gives what it gives in its turn: there is no state.
    fresh = [WindowOrder(counts, window, seed=2).place(p) for p in (2 * total + 3, 5, total)]
    assert fresh == [flat[2 * total + 3], flat[5], flat[total]]


@pytest.mark.parametrize("window", [0, 4, 9])
def test_one_window_for_all_has_the_order_of_a_folder(window: int) -> None:
    order = WindowOrder([3, 1, 4, 2], window, seed=5)
    items = [(shard, item) for shard, n in enumerate((3, 1, 4, 2)) for item in range(n)]
    for position in range(25):
        assert order.place(position)[1:] == items[epoch_permutation_index(5, position, 10)]


def test_items_of_a_window_are_well_mixed() -> None:
    order = WindowOrder([100] * 40, window=8, seed=1)
    shards = [order.place(position).shard for position in range(4000)]
    runs = sum(a == b for a, b in pairwise(shards))
    assert runs / 4000 == pytest.approx(1 / 8, abs=0.02)


@pytest.mark.parametrize("workers", [0, 2])
def test_shards_give_the_crops_of_the_folder_to_the_bit(
    maps: Path, packed: Path, tmp_path: Path, workers: int
) -> None:
    train, val = split_maps(list_maps(maps), 2, seed=3)
    folder = SketchMapDataModule(train, val, settings())
    for url in (str(packed), f"local:{packed}"):
        shards = datamodule(url, tmp_path, window=0, workers=workers)
        assert same(batches(folder), batches(shards))
        assert same(list(folder.val_dataloader()), list(shards.val_dataloader()))


def test_crops_depend_on_neither_workers_nor_place_nor_start_method(
    packed: Path, tmp_path: Path
) -> None:
    expected = batches(datamodule(str(packed), tmp_path))
    far = f"local:{packed}"
    assert same(expected, batches(datamodule(far, tmp_path / "a")))
    assert same(expected, batches(datamodule(far, tmp_path / "b", workers=2, cache_bytes=0)))
    loader = datamodule(far, tmp_path / "c", workers=1).train_dataloader()
    loader.multiprocessing_context = "spawn"
    assert same(expected, list(loader))
    assert not same(expected, batches(datamodule(str(packed), tmp_path, window=0)))


def of_rank(module: ShardMapDataModule, rank: int, world_size: int, seen: int = 0) -> list[Tensor]:
    trained = SimpleNamespace(batches_seen=seen)
    module.trainer = SimpleNamespace(  # type: ignore[assignment]
        lightning_module=trained, global_rank=rank, world_size=world_size
    )
    return batches(module)


def test_two_ranks_share_the_crops_of_one_process(packed: Path, tmp_path: Path) -> None:
    def module(**changes: Any) -> ShardMapDataModule:
        return datamodule(f"local:{packed}", tmp_path, empty_probability=0.0, **changes)

    whole = batches(module(batch_size=4))
    first, second = (of_rank(module(workers=1), rank, 2) for rank in (0, 1))
    assert same(whole, [torch.cat(pair) for pair in zip(first, second, strict=True)])
    crops = [{c.numpy().tobytes() for batch in rank[:5] for c in batch} for rank in (first, second)]
    assert not crops[0] & crops[1]


@pytest.mark.parametrize("seen", [1, 10, 11, 29])
def test_a_run_goes_on_at_any_step_under_any_number_of_workers(
    packed: Path, tmp_path: Path, seen: int
) -> None:
    whole = batches(datamodule(str(packed), tmp_path))
    resumed = datamodule(f"local:{packed}", tmp_path / str(seen), workers=seen % 3)
    assert same(of_rank(resumed, 0, 1, seen), whole[seen:])


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_lightning_resumes_it_as_it_resumes_a_folder(packed: Path, tmp_path: Path) -> None:
    def run(module: Recorder, resume: Path | None = None) -> L.Trainer:
        data = datamodule(f"local:{packed}", tmp_path / "cache", total_steps=6)
        return fit(data, tmp_path, module, resume)

    whole, first, second = Recorder(), Recorder(stop_at=3), Recorder()
    run(whole)
    run(first).save_checkpoint(tmp_path / "last.ckpt")
    run(second, tmp_path / "last.ckpt")
    assert same(whole.seen, first.seen + second.seen)
    assert len(second.seen) == 3


class Watched(FolderStore):
    """A far folder that counts what is fetched, and sees how full the cache then is."""

    def __init__(self, root: Path) -> None:
        super().__init__(f"local:{root}", root, in_place=False)
        self.fetched: list[str] = []
        self.most = 0
        self.change = threading.Condition()

    def fetch(self, name: str, target: Path) -> None:
        super().fetch(name, target)
        with self.change:
            self.most = max(self.most, used(target.parent))
            self.fetched.append(name)
            self.change.notify_all()

    def wait_for(self, names: set[str]) -> bool:
        with self.change:
            return self.change.wait_for(lambda: names <= set(self.fetched), timeout=30)


def used(cache: Path) -> int:
    # Under the lock that the cache changes its contents under: a shard that takes its
    # reservation's place would else be seen twice.
    with FileLock(cache / ".room.lock"):
        return sum(path.stat().st_size for path in cache.iterdir() if path.suffix in KEPT)


def watched(
    packed: Path, cache: Path, window: int = 2, **changes: Any
) -> tuple[Watched, ShardMapDataset, ShardSettings]:
    store = Watched(packed)
    split = split_of(str(packed))
    shards = [Shard(store, s.name, s.count, s.size, s.sha256) for s in split.shards]
    cached = how(cache, shards, window)
    changes = {"cache_bytes": 0, "empty_probability": 0.0, **changes}
    dataset = ShardMapDataset(ShardSplit(shards, split.train, []), settings(**changes), cached)
    return store, dataset, cached


def test_cache_keeps_its_bound_and_each_pass_fetches_a_shard_once(
    packed: Path, tmp_path: Path
) -> None:
    store, dataset, cached = watched(packed, tmp_path)
    for position in range(3 * (MAPS - 2)):
        dataset[position]
        assert used(tmp_path) <= cached.cache_bytes
    assert 0 < store.most <= cached.cache_bytes < sum(s.size for s in dataset.split.shards)
    assert len(store.fetched) <= 3 * 8 + 2


def test_the_next_pass_is_fetched_before_it_begins(packed: Path, tmp_path: Path) -> None:
    store, dataset, _ = watched(packed, tmp_path)
    total, windows = dataset.order.total, dataset.order.windows
    last = [p for p in range(total) if dataset.order.place(p).window == windows - 1]
    for position in last:
        dataset[position]
    # Nothing of the second pass was asked for, and yet its first window comes.
    following = [dataset.split.shards[n] for n in dataset.order.shards_of(windows)]
    assert store.wait_for({shard.name for shard in following})
    for shard in following:
        ShardCache(tmp_path, 2**30).prefetch(shard)  # waits for its lock: it is in its place
    before = len(store.fetched)
    while dataset.order.place(position + 1).window == windows:
        position += 1
        dataset._files.open(dataset.order.place(position).shard)
    assert len(store.fetched) == before


def test_one_set_of_workers_runs_through_all_passes(packed: Path, tmp_path: Path) -> None:
    # Workers that end with a pass would have to be started anew, and their batches waited for.
    loader: Any = datamodule(f"local:{packed}", tmp_path, workers=1).train_dataloader()
    pids = [loader._iterator._workers[0].pid for _ in loader]
    assert len(pids) * 2 > 2 * (MAPS - 2) and len(set(pids)) == 1


def test_processes_share_a_cache(packed: Path, tmp_path: Path) -> None:
    expected = batches(datamodule(str(packed), tmp_path))
    modules = [datamodule(f"local:{packed}", tmp_path / "cache", workers=2) for _ in range(2)]
    pairs = list(zip(*(module.train_dataloader() for module in modules), strict=True))
    assert same(expected, [left for left, _ in pairs])
    assert same(expected, [right for _, right in pairs])
    assert used(tmp_path / "cache") <= modules[0].shards.cache_bytes


def test_a_file_that_went_stays_readable_where_it_is_open(packed: Path, tmp_path: Path) -> None:
    _, dataset, _ = watched(packed, tmp_path)
    first, second = dataset.split.shards[:2]
    cache = ShardCache(tmp_path, max(first.size, second.size))
    opened = cache.open(first)
    before = opened.png(0)
    cache.open(second).close()
    assert not (tmp_path / first.name).exists()
    assert opened.png(0) == before
    opened.close()


def test_room_is_made_of_what_was_used_longest_ago_and_may_go(packed: Path, tmp_path: Path) -> None:
    _, dataset, _ = watched(packed, tmp_path)
    a, b, c, d, e = dataset.split.shards[:5]
    cache = ShardCache(tmp_path, 3 * max(shard.size for shard in dataset.split.shards))

    def there() -> set[str]:
        return {path.name for path in tmp_path.glob("*.bin")}

    for age, shard in enumerate((a, b, c)):
        cache.open(shard).close()
        os.utime(tmp_path / shard.name, (age, age))
    cache.open(a).close()  # used again
    cache.open(d, keep={b.name}).close()
    assert there() == {a.name, b.name, d.name}
    cache.prefetch(e, keep={a.name, b.name, d.name})
    assert there() == {a.name, b.name, d.name}
    cache.prefetch(e, keep={a.name, d.name})
    assert there() == {a.name, d.name, e.name}


def test_files_of_others_in_the_cache_folder_stay(packed: Path, tmp_path: Path) -> None:
    _, dataset, _ = watched(packed, tmp_path)
    first, second = dataset.split.shards[:2]
    (tmp_path / "pytorch_model.bin").write_bytes(bytes(first.size))
    cache = ShardCache(tmp_path, max(first.size, second.size))
    cache.open(first).close()
    cache.open(second).close()
    found = {path.name for path in tmp_path.glob("*.bin")}
    assert found == {"pytorch_model.bin", second.name}


def test_a_set_that_is_named_twice_counts_once(packed: Path, tmp_path: Path) -> None:
    mirror = shutil.copytree(packed, tmp_path / "mirror")
    several, once = (
        list_shards([str(packed), f"{packed}/", str(mirror)]),
        list_shards([str(packed)]),
    )
    assert [str(shard) for shard in several] == [str(shard) for shard in once]


def test_maps_that_are_packed_twice_are_not_both_trained_on_and_held_out(
    maps: Path, packed: Path, tmp_path: Path
) -> None:
    pack(maps, str(tmp_path / "other"), shard_bytes=9_000)
    both = split_shards(list_shards([str(packed), str(tmp_path / "other")]), 2, seed=3)
    once = split_of(str(packed))
    assert list(map(str, both.shards)) == list(map(str, once.shards)) and both.train == once.train

    more = shutil.copytree(maps, tmp_path / "more")
    save_png(np.full((40, 50), 7, np.uint8), more / "a new one.png")
    pack(more, str(tmp_path / "packed more"), shard_bytes=9_000)
    split = split_shards(list_shards([str(packed), str(tmp_path / "packed more")]), 5, seed=3)
    train = [
        load_place(MapPlace(shard, item)).tobytes()
        for shard, items in zip(split.shards, split.train, strict=True)
        for item in items
    ]
    val = [load_place(place).tobytes() for place in split.val]
    assert len({*train, *val}) == len(train) + len(val) == MAPS + 1


def test_other_maps_of_the_same_names_count_too(maps: Path, packed: Path, tmp_path: Path) -> None:
    (tmp_path / "maps").mkdir()
    for path in maps.iterdir():
        save_png(np.zeros((40, 50), np.uint8), tmp_path / "maps" / path.name)
    pack(tmp_path / "maps", str(tmp_path / "shards"))
    urls = [str(packed), str(tmp_path / "shards")]
    assert sum(map(len, split_shards(list_shards(urls), 2, seed=3).train)) == 2 * MAPS - 2
    (names,) = (tmp_path / "shards").glob("names-*.txt")
    names.write_text("damaged")
    with pytest.raises(DataError, match=rf"{names.name}: damaged.*picsnet sketch"):
        split_shards(list_shards(urls), 2, seed=3)


def test_what_a_killed_process_left_is_not_counted(packed: Path, tmp_path: Path) -> None:
    store, dataset, cached = watched(packed, tmp_path)
    shard = dataset.split.shards[0]

    def die(name: str, target: Path) -> None:
        target.write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)

    def killed() -> None:
        child = os.fork()
        if child == 0:
            store.fetch = die  # type: ignore[method-assign]
            ShardCache(tmp_path, cached.cache_bytes).open(shard)
        os.waitpid(child, 0)
        assert (tmp_path / f"{shard.name}.room").exists()

    killed()
    ShardCache(tmp_path, shard.size).prefetch(shard)
    assert (tmp_path / shard.name).exists()
    (tmp_path / shard.name).unlink()
    killed()
    other = dataset.split.shards[1]
    ShardCache(tmp_path, max(shard.size, other.size)).open(other).close()
    assert {path.name for path in tmp_path.glob("*.*") if path.name[0] != "."} == {other.name}
    assert not list(tmp_path.glob(".*.part"))
    ShardCache(tmp_path, cached.cache_bytes).open(shard).close()
    assert not list(tmp_path.glob("*.room")) and not list(tmp_path.glob(".*.part"))


def test_a_copy_that_was_cut_short_makes_room_for_a_whole_one(packed: Path, tmp_path: Path) -> None:
    _, dataset, _ = watched(packed, tmp_path)
    shards = dataset.split.shards[:2]
    cache = ShardCache(tmp_path, sum(shard.size for shard in shards))
    keep = {shard.name for shard in shards}
    for shard in shards:
        cache.open(shard, keep).close()
    os.truncate(tmp_path / shards[0].name, 1000)
    cache.open(shards[0], keep).close()  # waited for room that its own rest took


@pytest.mark.parametrize(("far", "workers"), [(False, 0), (True, 0), (True, 1)])
def test_broken_shard_is_named_in_one_line(
    maps: Path, tmp_path: Path, far: bool, workers: int
) -> None:
    folder, cache = tmp_path / "shards", tmp_path / "cache"
    pack(maps, str(folder))
    module = datamodule(("local:" if far else "") + str(folder), cache, workers=workers)
    victim = module.split.shards[3]
    path = folder / victim.name
    data = path.read_bytes()
    path.write_bytes(data[:-50] + b"x" + data[-49:])
    with pytest.raises(DataError, match=rf"{victim.name}: damaged") as caught:
        batches(module)
    assert "\n" not in str(caught.value)
    assert not (cache / victim.name).exists()
    assert "delete it, then make it again" in str(caught.value)
    path.unlink()
    with pytest.raises(DataError, match=rf"{victim.name}: cannot be read") as caught:
        batches(module)
    assert "\n" not in str(caught.value)
    pack(maps, str(folder))  # what was advised mends it
    assert len(batches(module)) == 30


def test_settings_that_cannot_work(packed: Path, tmp_path: Path) -> None:
    split = split_of(f"local:{packed}")
    with pytest.raises(DataError, match=r"4 shards.*data\.shards_cache_gb.*data\.shards_window"):
        ShardMapDataModule(split, settings(), ShardSettings(tmp_path, 9_000, 2))
    ShardMapDataModule(split_of(str(packed)), settings(), ShardSettings(tmp_path, 1, 2))
    with pytest.raises(DataError, match="val_count"):
        ShardMapDataModule(split_of(str(packed), 0), settings(), ShardSettings(tmp_path, 1, 2))
    with pytest.raises(DataError, match=r"24 maps cannot spare 24"):
        split_of(str(packed), MAPS)
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match=r"cannot be kept there.*data\.shards_cache"):
        batches(datamodule(f"local:{packed}", tmp_path / "file"))


def test_a_bucket_gives_the_crops_of_its_folder(
    maps: Path, packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serve(monkeypatch) as bucket:
        pack(maps, "s3://maps/some")
        near = datamodule(str(packed), tmp_path, total_steps=12)
        module = datamodule("s3://maps/some", tmp_path / "cache", workers=1, total_steps=12)
        bucket.log.clear()
        assert same(list(near.val_dataloader()), list(module.val_dataloader()))
        assert same(batches(near), batches(module))
        assert used(tmp_path / "cache") <= module.shards.cache_bytes
        asked = {path for method, path in bucket.log if path.endswith(".bin")}
        assert len(asked) == 8
