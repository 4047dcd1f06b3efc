"""Sketch maps in shards as training data: from a disk in place, or streamed from a bucket."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, chain
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
from torch import Tensor
from torch.utils.data import DataLoader

from datamodules.maps import (
    FixedCropDataset,
    Map,
    MapDataSettings,
    RandomCrops,
    crops_loader,
    decode_grey_png,
    held_out_indices,
)
from datamodules.sampling import WindowOrder
from datamodules.shard_cache import Prefetcher, ShardCache
from picsnet.errors import DataError
from picsnet.shards import OpenShard, Shard, ShardReader, damaged, names_by_shard, read_set

OPEN_FILES = 256
"""Shards that a worker holds open, well below what systems allow a process."""


@dataclass(frozen=True)
class ShardSettings:
    """How shards are read.

    Attributes:
        cache: folder for shards of buckets.
        cache_bytes: that it may hold.
        window: shards that are shuffled together; 0 for all.
    """

    cache: Path
    cache_bytes: int
    window: int


@dataclass(frozen=True)
class MapPlace:
    """A map by its shard and its number in it."""

    shard: Shard
    item: int


@dataclass(frozen=True)
class ShardSplit:
    """Which maps of which shards are trained on, and which are held out.

    Attributes:
        shards: all of them.
        train: for each shard the numbers of its maps that are trained on, in rising order.
        val: held out.
    """

    shards: list[Shard]
    train: list[list[int]]
    val: list[MapPlace]


def list_shards(urls: Sequence[str]) -> list[Shard]:
    """The shards at some paths or URLs, in order; one that stands at several counts once.

    Raises:
        UsageError, DataError: as `picsnet.shards.read_set`.
    """
    # By content: else maps that are held out in one would be trained on in the other.
    once: dict[str, Shard] = {}
    for url in urls:
        for shard in read_set(url).shards:
            once.setdefault(shard.sha256, shard)
    return list(once.values())


def split_shards(shards: Sequence[Shard], val_count: int, seed: int) -> ShardSplit:
    """Hold out a fixed draw of ``val_count`` maps, by the same rule as `split_maps`.

    Shards of a folder of maps thus give the split that the folder gives. A map that stands in
    several sets counts once.

    Raises:
        DataError: there are too few maps for that, or it cannot be told which stand in several.
    """
    counted = [(shard, items) for shard, items in _once(shards) if items]
    train = [items for _, items in counted]
    val = []
    starts = [0, *accumulate(map(len, train))]
    drawn = held_out_indices(starts[-1], val_count, seed).tolist()
    for index in reversed(drawn):  # so that those before keep their places
        number = int(np.searchsorted(starts, index, side="right")) - 1
        item = train[number].pop(index - starts[number])
        val.append(MapPlace(counted[number][0], item))
    return ShardSplit([shard for shard, _ in counted], train, val[::-1])


def _once(shards: Sequence[Shard]) -> list[tuple[Shard, list[int]]]:
    """Shards with the numbers of their maps that no set before their own has.

    Else maps that were packed anew, in shards of another size or with more maps, would be held out
    here and trained on there. They are known by name and bytes: only tables of shards are read.
    """
    stores = {shard.store.url: shard.store for shard in shards}
    if len(stores) == 1:
        return [(shard, list(range(shard.count))) for shard in shards]
    names = {url: names_by_shard(store) for url, store in stores.items()}
    sets = Counter(
        name for own in names.values() for name in set(chain.from_iterable(own.values()))
    )
    first: dict[tuple[str, int], str] = {}  # the set that has a map first
    result = []
    for shard in shards:
        own = names[shard.store.url][shard.name]
        table = _reader(shard) if any(sets[name] > 1 for name in own) else None
        items = [
            item
            for item, name in enumerate(own)
            if table is None
            or first.setdefault((name, table.length(item)), shard.store.url) == shard.store.url
        ]
        result.append((shard, items))
    return result


class ShardMapDataset(RandomCrops):
    """Crops of maps that lie in shards, shuffled by `WindowOrder`.

    The shards of the window at hand are on this machine; those of the next one are fetched
    meanwhile, also where that belongs to the next pass over the maps.
    """

    def __init__(self, split: ShardSplit, settings: MapDataSettings, shards: ShardSettings) -> None:
        super().__init__(settings)
        self.split, self.how = split, shards
        self.order = WindowOrder(
            [len(items) for items in split.train], shards.window, settings.seed
        )
        self._starts = [0, *accumulate(len(items) for items in split.train)]
        self._files = _WindowFiles(split.shards, self.order, shards)

    def map_at(self, position: int) -> Map:
        place = self.order.place(position)
        self._files.enter(place.window)
        shard = self.split.shards[place.shard]
        item = self.split.train[place.shard][place.item]

        def load() -> Map:
            return _decoded(self._files.open(place.shard), shard, item)

        return self.cache.get(self._starts[place.shard] + place.item, load)


class _WindowFiles:
    """Open files of one window's shards, while those of the next are fetched."""

    def __init__(self, shards: list[Shard], order: WindowOrder, how: ShardSettings) -> None:
        self.shards, self.order = shards, order
        self.disk = ShardCache(how.cache, how.cache_bytes)
        self._forget()

    def _forget(self) -> None:
        self._window: int | None = None
        self._keep: frozenset[str] = frozenset()
        self._open: OrderedDict[int, OpenShard] = OrderedDict()
        self._prefetcher = Prefetcher(lambda shard: self.disk.prefetch(shard, self._keep))

    def __getstate__(self) -> dict[str, Any]:
        # Files and threads do not go to other processes.
        return {"shards": self.shards, "order": self.order, "disk": self.disk}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._forget()

    def enter(self, window: int) -> None:
        """Be told which window the next map is of."""
        if window == self._window:
            return
        first = self._window is None
        self._window = window
        at_hand = self.order.shards_of(window)
        following = self.order.shards_of(window + 1)
        self._keep = frozenset(self.shards[number].name for number in (*at_hand, *following))
        for number in set(self._open) - {*at_hand, *following}:
            self._open.pop(number).close()
        wanted = [*at_hand, *following] if first else following
        self._prefetcher.want(
            [self.shards[n] for n in dict.fromkeys(wanted) if self.shards[n].store.folder is None]
        )

    def open(self, number: int) -> OpenShard:
        """A shard of the window."""
        file = self._open.get(number)
        if file is None:
            if len(self._open) >= OPEN_FILES:
                self._open.popitem(last=False)[1].close()
            file = self._open[number] = self.disk.open(self.shards[number], self._keep)
        self._open.move_to_end(number)
        return file


def load_place(place: MapPlace) -> Map:
    """A map by itself, wherever its shard is; no more of the shard is read than its table.

    Raises:
        DataError: it cannot be read, or is damaged.
    """
    return _decoded(_reader(place.shard), place.shard, place.item)


def _reader(shard: Shard) -> ShardReader:
    return ShardReader(shard, lambda offset, length: shard.store.read(shard.name, offset, length))


def _decoded(reader: ShardReader, shard: Shard, item: int) -> Map:
    pixels = decode_grey_png(reader.png(item))
    if pixels is None:
        raise damaged(shard, f"map {item} of {shard.count}")
    return pixels


class ShardMapDataModule(L.LightningDataModule):
    """Random crops for training, fixed ones for validation, as `SketchMapDataModule` has them.

    Args:
        split: which maps of which shards.
        settings: crops, batches, augmentation.
        shards: how shards are read.

    Raises:
        DataError: no validation maps, or the cache cannot hold what must be at hand.
    """

    def __init__(self, split: ShardSplit, settings: MapDataSettings, shards: ShardSettings) -> None:
        super().__init__()
        if not split.val:
            raise DataError("no maps to validate on; raise data.val_count")
        check_cache(split.shards, shards)
        self.split, self.settings, self.shards = split, settings, shards

    def train_dataloader(self) -> DataLoader[Tensor]:
        return crops_loader(self, ShardMapDataset(self.split, self.settings, self.shards))

    def val_dataloader(self) -> DataLoader[Tensor]:
        return DataLoader(
            FixedCropDataset(self.split.val, self.settings.crop, load_place),
            batch_size=self.settings.val_batch_size,
        )


def check_cache(shards: Sequence[Shard], how: ShardSettings) -> None:
    """See that two windows fit: the one at hand and the one that is fetched meanwhile.

    Raises:
        DataError: they do not.
    """
    sizes = sorted((s.size for s in shards if s.store.folder is None), reverse=True)
    many = len(sizes) if how.window == 0 else min(len(sizes), 2 * how.window)
    need = sum(sizes[:many])
    if need > how.cache_bytes:
        mend = f"data.shards_cache_gb={need / 2**30 * 1.01:.3g} or more"
        raise DataError(
            f"{how.cache}: may hold {how.cache_bytes / 2**30:.3g} GB, but {many} shards "
            f"of {need / 2**30:.3g} GB must be at hand; give {mend}, or a smaller "
            "data.shards_window"
        )
