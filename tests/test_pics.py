"""The whole codec with miniature models: photographs to files and back."""

from __future__ import annotations

import pickle
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

import picsnet
from picsnet.bitstream import overhead_bytes, read
from picsnet.clip import Clip
from picsnet.decoder.diffusion import DiffusionDecoder
from picsnet.errors import (
    DecoderMismatchError,
    ImageError,
    ModelError,
    PromptError,
    TruncatedFileError,
    UnsupportedLayerError,
    UsageError,
)
from picsnet.metrics import colour_error
from picsnet.prompt.inversion import InversionConfig
from tests.miniatures import save_clip, save_tokenizer

QUICK = InversionConfig(tokens=4, steps=5)


def photograph(seed: int, width: int = 120, height: int = 80) -> NDArray[np.uint8]:
    blocks = np.random.default_rng(seed).integers(0, 255, (5, 7, 3), np.uint8)
    resized = Image.fromarray(blocks).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(resized)


@pytest.fixture(scope="module")
def make(miniature_decoder: Path) -> Any:
    def codec(**options: Any) -> picsnet.PICS:
        options = {"candidates": 1, "prompt_from": "none", "inversion": QUICK, **options}
        return picsnet.PICS.from_pretrained(decoder=str(miniature_decoder), device="cpu", **options)

    return codec


@pytest.fixture(scope="module")
def plain(make: Any) -> picsnet.PICS:
    codec: picsnet.PICS = make()
    return codec


def test_a_photograph_comes_back_at_its_own_size(plain: picsnet.PICS) -> None:
    data = plain.encode(photograph(0), "a photo of a red dog")
    picture = plain.decode(data)
    assert picture.size == (120, 80) and picture.mode == "RGB"
    assert np.asarray(picture).std() > 5
    # A frame of a network's or of mmap's is no bytes object.
    assert plain.decode(bytearray(data)) == plain.decode([memoryview(data)])[0] == picture


def test_a_codec_with_other_settings_shares_the_models(make: Any) -> None:
    plain = make()
    both, alone = plain.varied(candidates=2), plain.varied(mode="pic", candidates=1)
    first = both.encode_parts([photograph(0)], ["a dog"])[0]
    assert len(first.scores) == 2 and alone.encode_parts([photograph(0)])[0].sketch is None
    again = plain.varied(candidates=2)
    assert again.decoder is plain.decoder and again._clip is both._clip
    assert again.encode(photograph(0), "a dog") == first.data
    finer = plain.varied(quality=5, candidates=1).encode(photograph(0), "a dog")
    assert len(finer) > len(plain.encode(photograph(0), "a dog"))  # whose own settings stay
    with pytest.raises(UsageError, match="--quality 9"):
        plain.varied(quality=9)
    with pytest.raises(UsageError, match="--candidates 33"):
        plain.varied(candidates=33)
    with pytest.raises(UsageError, match="'sketch'"):
        plain.varied(mode="sketch")


def test_what_is_sent_is_what_arrives(plain: picsnet.PICS) -> None:
    part = plain.encode_parts([photograph(1)], ["two cats"])[0]
    back = plain.decode_parts([part.data])[0]
    assert part.ids == back.ids != []
    assert back.prompt == "two cats" == part.prompt
    assert part.decoded_sketch is not None and back.sketch is not None
    assert np.array_equal(back.sketch, part.decoded_sketch)
    assert part.original.shape[:2] == back.sketch.shape == back.drawn.shape[:2] == (128, 192)
    assert sum(part.layers.values()) == len(part.data)
    assert part.bpp == 8 * len(part.data) / (120 * 80)
    assert overhead_bytes(part.layers) <= 16
    assert {"prompt", "sketch", "code"} <= set(part.seconds)


def test_large_photographs_are_drawn_in_passes(make: Any) -> None:
    settings = ["size=64", "last_size=128", "steps=2"]
    codec = make(decoder_settings=settings, candidates=2)
    large, small = photograph(3, 210, 140), photograph(3, 120, 80)
    parts = codec.encode_parts([large, small], ["a dog", "a dog"])
    assert all(min(c.shape[:2]) == 64 for part in parts for c in part.candidates)
    back = codec.decode_parts([part.data for part in parts])
    assert [b.drawn.shape for b in back] == [(128, 192, 3), (64, 96, 3)]
    assert [b.picture.shape for b in back] == [(140, 210, 3), (80, 120, 3)]
    alone = make(decoder_settings=settings).decode_parts([parts[0].data])[0]
    assert np.array_equal(alone.picture, back[0].picture)


def test_pic_sends_no_sketch(make: Any) -> None:
    pic, pics = make(mode="pic"), make()
    data = pic.encode(photograph(2), "a bird")
    assert read(data).sketch is None
    assert len(data) < len(pics.encode(photograph(2), "a bird"))
    assert pics.decode(data).size == (120, 80)
    assert pic.encode_parts([photograph(2)], ["a bird"])[0].sketch is None


def test_lists_are_batches(plain: picsnet.PICS, tmp_path: Path) -> None:
    photos = [photograph(i) for i in range(3)]
    Image.fromarray(photos[1]).save(tmp_path / "one.png")
    inputs = [photos[0], tmp_path / "one.png", Image.fromarray(photos[2])]
    together = plain.encode(inputs, ["a", "the dog", "snow"])
    alone = [plain.encode(p, t) for p, t in zip(photos, ["a", "the dog", "snow"], strict=True)]
    assert together == alone
    pictures = plain.decode(together)
    assert [np.asarray(p).tolist() for p in pictures] == [
        np.asarray(plain.decode(data)).tolist() for data in together
    ]
    batched = plain.decode_parts(together, batch=3)
    for one, other in zip(batched, pictures, strict=True):
        assert np.abs(one.picture.astype(int) - np.asarray(other)).max() <= 1


def test_no_pictures_make_no_files(plain: picsnet.PICS) -> None:
    assert plain.encode([]) == [] and plain.decode([]) == []


def test_an_opened_picture_is_that_of_its_file(plain: picsnet.PICS, tmp_path: Path) -> None:
    """Pillow's own conversion would clip 16 bits to white, show what is transparent, and lie."""
    photo = photograph(3)
    deep = Image.fromarray(photo[:, :, 0].astype(np.uint16) * 257)
    clear = Image.fromarray(np.dstack([photo, photo[:, :, 0]]))
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    deep.save(tmp_path / "deep.png")
    clear.save(tmp_path / "clear.png")
    Image.fromarray(photo).save(tmp_path / "turned.png", exif=exif)
    for path in sorted(tmp_path.iterdir()):
        with Image.open(path) as opened:
            one, other = plain.encode_parts([path, opened])
        assert np.array_equal(one.original, other.original), path.name
        assert one.data == other.data


def test_the_best_candidate_is_named_and_drawn(make: Any, miniature_decoder: Path) -> None:
    codec = make(candidates=5)
    part = codec.encode_parts([photograph(3)], ["a house"])[0]
    clip = Clip.from_pretrained(str(miniature_decoder / "clip"))
    scores = clip.image_similarities(part.original, part.candidates)
    assert part.scores == pytest.approx(scores)
    assert part.candidate == int(np.argmax(scores))
    assert len(set(part.scores)) == 5
    back = codec.decode_parts([part.data])[0]
    assert back.candidate == part.candidate
    difference = np.abs(back.drawn.astype(int) - part.candidates[part.candidate])
    assert difference.max() <= 1  # another batch size
    others = [c for i, c in enumerate(part.candidates) if i != part.candidate]
    assert all(np.abs(back.drawn.astype(int) - other).mean() > 1 for other in others)
    assert codec.encode(photograph(3), "a house") == part.data


def test_candidates_may_be_judged_by_colour(make: Any) -> None:
    part = make(candidates=5, judge="colour").encode_parts([photograph(3)], ["a house"])[0]
    errors = [colour_error(part.original, candidate) for candidate in part.candidates]
    assert part.scores == pytest.approx([-error for error in errors])
    assert part.candidate == int(np.argmin(errors))
    with pytest.raises(UsageError, match="judge 'taste': one of clip, colour"):
        make(judge="taste")


def test_prompts_by_inversion(make: Any) -> None:
    codec = make(prompt_from="inversion")
    photos = [photograph(i) for i in range(2)]
    parts = codec.encode_parts(photos)
    assert [len(part.ids) for part in parts] == [4, 4]
    assert [part.data for part in parts] == codec.encode(photos)
    assert codec.decode_parts([parts[0].data])[0].ids == parts[0].ids
    given = codec.encode_parts(photos, ["a dog", None])
    assert given[0].prompt == "a dog" and given[1].ids == parts[1].ids


def test_inversion_needs_the_decoders_vocabulary(make: Any, tmp_path: Path) -> None:
    folder = save_clip(tmp_path / "clip")
    save_tokenizer(folder, ["other", "words"])
    with pytest.raises((PromptError, ModelError), match=r"vocabular"):
        make(prompt_from="inversion", clip=str(folder)).encode(photograph(0))


def test_one_candidate_loads_no_clip(miniature_decoder: Path) -> None:
    codec = picsnet.PICS.from_pretrained(
        decoder=str(miniature_decoder),
        clip="/nowhere/clip",
        candidates=1,
        prompt_from="none",
        device="cpu",
    )
    codec.encode(photograph(0), "a dog")
    more = picsnet.PICS.from_pretrained(
        decoder=str(miniature_decoder), clip="/nowhere/clip", candidates=2, device="cpu"
    )
    with pytest.raises(ModelError, match=r"/nowhere/clip.*--clip"):
        more.encode(photograph(0), "a dog")


def test_sender_and_receiver_must_agree(make: Any, plain: picsnet.PICS) -> None:
    data = make(decoder_settings=["steps=2"]).encode(photograph(0), "a dog")
    with pytest.raises(DecoderMismatchError, match=r"--decoder-set"):
        plain.decode(data)
    data = make(decoder_settings=["size=192"]).encode(photograph(0), "a dog")
    with pytest.raises(DecoderMismatchError, match="size 192"):
        plain.decode(data)


def test_a_cut_file_gives_what_arrived(plain: picsnet.PICS) -> None:
    part = plain.encode_parts([photograph(4)], ["a river"])[0]
    cut = part.data[:-5]
    with pytest.raises(Exception, match="cut short"):
        plain.decode(cut)
    back = plain.decode_parts([cut], partial=True)[0]
    assert back.missing == ("sketch",) and back.sketch is None
    assert back.prompt == "a river" and back.picture.shape == (80, 120, 3)
    head = part.layers["header"]
    with pytest.raises(TruncatedFileError):
        plain.decode_parts([part.data[: head + 3]], partial=True)
    whole = plain.decode_parts([part.data], partial=True)[0]
    assert whole.missing == () and whole.sketch is not None


def test_a_sketch_file_has_nothing_to_draw_from(plain: picsnet.PICS) -> None:
    from picsnet.checkpoints import load_model
    from picsnet.codec import SketchCodec
    from tests.conftest import drawn_map

    data = SketchCodec(load_model("sketch_ntc_lambda0.5")).encode_map(drawn_map(64, 64, 0))
    with pytest.raises(UnsupportedLayerError, match="--sketch-only"):
        plain.decode(data)


@pytest.mark.parametrize(
    "options",
    [{"mode": "both"}, {"prompt_from": "dreams"}, {"candidates": 0}, {"candidates": 33}],
)
def test_impossible_options_are_refused_before_any_work(make: Any, options: Any) -> None:
    with pytest.raises(UsageError):
        make(**options)


def test_impossible_inputs_are_refused(plain: picsnet.PICS) -> None:
    with pytest.raises(UsageError, match="list of prompts"):
        plain.encode([photograph(0)], "one")  # type: ignore[call-overload]
    with pytest.raises(UsageError, match="one each"):
        plain.encode([photograph(0)], ["one", "two"])
    with pytest.raises(UsageError, match="uint8"):
        plain.encode(np.zeros((20, 20, 3)))
    with pytest.raises(UsageError, match="not bytes; convert it"):
        plain.encode([b"a file"])  # type: ignore[call-overload]
    with pytest.raises(UsageError, match="read_bytes"):
        plain.decode("photo.pics")  # type: ignore[call-overload]


@pytest.mark.parametrize("size", [(8, 40), (0, 40), (40, 9000)])
def test_a_size_that_no_file_has_is_refused_before_any_work(
    size: tuple[int, int], plain: picsnet.PICS, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plain, "_prompt_ids", None)
    with pytest.raises(ImageError, match=f"{size[1]}x{size[0]}; sides must be 16 to 8192"):
        plain.encode_parts([photograph(0), np.zeros((*size, 3), np.uint8)])


def test_the_callers_chance_is_left_alone(make: Any) -> None:
    before = torch.get_rng_state(), np.random.get_state()[2], random.getstate()
    codec = make(prompt_from="inversion", candidates=2)
    codec.decode(codec.encode(photograph(0)))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[2], random.getstate()) == before[1:]


def test_what_the_caller_computes_in_changes_nothing(make: Any) -> None:
    plain = make(prompt_from="inversion")
    data = plain.encode(photograph(0))
    expected = plain.decode_parts([data])[0]
    codec = make(prompt_from="inversion")
    with torch.inference_mode():
        assert codec.encode(photograph(0)) == data
    codec = make()
    with torch.autocast("cpu", torch.bfloat16):
        found = codec.decode_parts([data])[0]
    assert found.sketch is not None and expected.sketch is not None
    assert np.array_equal(found.sketch, expected.sketch)
    assert np.array_equal(found.picture, expected.picture)


def test_threads_take_turns(make: Any) -> None:
    shared = make(prompt_from="inversion")
    photos = [photograph(i) for i in range(3)]
    files = shared.encode(photos)
    pictures = shared.decode(files)

    def with_all(i: int) -> bool:
        varied = shared.varied(candidates=1)
        return bool(varied.encode(photos[i]) == files[i] and varied.decode(files[i]) == pictures[i])

    def with_its_own(i: int) -> bool:
        return bool(make().decode(files[i]) == pictures[i])

    with ThreadPoolExecutor(3) as threads:
        assert all(threads.map(with_all, range(3)))
        assert all(threads.map(with_its_own, range(3)))


def test_a_codec_that_was_used_can_be_copied(make: Any) -> None:
    codec = make()
    data = codec.encode(photograph(0), "a dog")
    picture = codec.decode(data)
    copy = pickle.loads(pickle.dumps(codec))
    assert copy.encode(photograph(0), "a dog") == data
    assert copy.decode(data) == picture


def test_the_decoder_is_kept_between_pictures(
    plain: picsnet.PICS, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = plain.encode(photograph(0), "a dog")
    plain.decode(data)

    def reload(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("loaded a second time")

    monkeypatch.setattr("picsnet.decoder.loading.load_parts", reload)
    monkeypatch.setattr("picsnet.decoder.loading.assemble", reload)
    assert isinstance(plain.decoder, DiffusionDecoder)
    plain.decode(data)


def test_what_is_of_another_kind_is_one_line(plain: picsnet.PICS, make: Any) -> None:
    pixels = photograph(0)
    for wrong in (torch.from_numpy(pixels.copy()), None, (p for p in [pixels]), b"\x89PNG"):
        with pytest.raises(UsageError, match="several pictures are a list"):
            plain.encode(wrong)  # type: ignore[call-overload]
    for one in (pixels, Image.fromarray(pixels), "photo.png"):
        with pytest.raises(UsageError, match="several pictures are a list"):
            plain.encode_parts(one)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="a prompt is a text or None, not int"):
        plain.encode([pixels, pixels], ["a dog", 3])  # type: ignore[call-overload]
    for path in ("a.pics", Path("a.pics"), [Path("a.pics")], None):
        with pytest.raises(UsageError, match=r"read_bytes\(\)"):
            plain.decode(path)  # type: ignore[call-overload]
    with pytest.raises(UsageError, match="must be at least 1"):
        plain.decode_parts([b""], batch=0)
    for candidates in ("4", 2.0, True):
        with pytest.raises(UsageError, match=r"--candidates .* a whole number"):
            make(candidates=candidates)
    assert make(candidates=np.int64(4)).candidates == 4
    with pytest.raises(UsageError, match="a sketcher is named by a text"):
        make(sketcher=np.asarray).encode(pixels)
