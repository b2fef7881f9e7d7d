"""Where further pictures come from: perceptual hashes, changed copies, and a folder that CLIP searches."""

from __future__ import annotations

import importlib
import json
import logging
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from transformers import AutoProcessor, CLIPModel

from kore_bench.augment.clip import Clip
from kore_bench.augment.folder import FolderImages
from kore_bench.augment.phash import NEAR, copies, hamming, perceptual_hash
from kore_bench.augment.providers import RETAINED, RETRIEVED, OwnImages, image_provider
from kore_bench.cache import file_digest
from kore_bench.cli import main
from kore_bench.errors import UserError
from kore_bench.examples import Item

tiny: Any = importlib.import_module("tiny_clip")


def photo(seed: int, side: int = 96) -> Image.Image:
    """Return a smooth picture, as photographs are."""
    noise = np.random.default_rng(seed).integers(0, 255, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((side, side), Image.Resampling.BICUBIC)


def save(picture: Image.Image, file: Path, **settings: Any) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    picture.save(file, **settings)
    return file


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tiny.write_clip(tmp_path_factory.mktemp("clip"))
    return folder


@pytest.fixture
def private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the test a cache of its own."""
    monkeypatch.setenv("KORE_BENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """Return a folder with twelve pictures, some of them in folders below."""
    for seed in range(12):
        save(photo(seed), tmp_path / "album" / ("sub" if seed % 3 else ".") / f"{seed:02}.png")
    return tmp_path / "album"


@pytest.fixture
def item(tmp_path: Path) -> Item:
    own = save(photo(100), tmp_path / "own.png")
    return Item(id="a", image=own, prompt="What?", text="A tower.", name="Tall Tower", type="building")


# --- perceptual hashes ---


@pytest.mark.parametrize("change", ["half", "poor", "bright", "turned"])
def test_copies_of_a_picture_are_near_and_other_pictures_are_not(tmp_path: Path, change: str) -> None:
    picture = photo(1, side=200)
    file = save(picture, tmp_path / "one.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # a viewer turns it by 90 degrees
    other = {
        "half": lambda: save(picture.resize((100, 90)), tmp_path / "half.png"),
        "poor": lambda: save(picture, tmp_path / "poor.jpg", quality=30),
        "bright": lambda: save(ImageEnhance.Brightness(picture).enhance(1.08), tmp_path / "bright.png"),
        "turned": lambda: save(picture.transpose(Image.Transpose.ROTATE_90), tmp_path / "t.jpg", quality=95, exif=exif),
    }[change]()
    assert hamming(perceptual_hash(file), perceptual_hash(other)) <= NEAR
    assert copies(file, other)
    for seed in range(2, 30):
        stranger = save(photo(seed), tmp_path / "stranger.png")
        assert hamming(perceptual_hash(file), perceptual_hash(stranger)) > NEAR


def test_pictures_that_differ_in_colour_alone_are_no_copies(tmp_path: Path) -> None:
    grey = photo(3).convert("L")
    one = save(Image.merge("RGB", (grey, grey, grey)), tmp_path / "grey.png")
    tinted = np.asarray(grey, dtype=np.float64)[..., None] + np.array([60.0, -30.0, 0.0])
    other = save(Image.fromarray(tinted.clip(0, 255).astype(np.uint8)), tmp_path / "tinted.png")
    assert hamming(perceptual_hash(one), perceptual_hash(other)) <= NEAR
    assert not copies(one, other)


def test_a_hash_has_64_bits_and_a_blank_picture_has_one_too(tmp_path: Path) -> None:
    assert 0 <= perceptual_hash(save(photo(5), tmp_path / "a.png")) < 2**64
    blank = [perceptual_hash(save(Image.new("RGB", (50, side), "teal"), tmp_path / f"{side}.png")) for side in (20, 90)]
    assert hamming(*blank) == 0
    seen_through = save(Image.new("RGBA", (40, 40), (0, 0, 0, 0)), tmp_path / "clear.png")
    assert perceptual_hash(seen_through) == perceptual_hash(save(Image.new("RGB", (9, 9), "white"), tmp_path / "w.png"))


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"])
def test_a_file_that_is_no_picture_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(UserError, match=r"x\.png cannot be read as an image"):
        perceptual_hash(tmp_path / "x.png")


# --- none ---


def test_none_changes_the_own_picture_the_same_way_each_time(item: Item, private: Path) -> None:
    first, again = image_provider("none").pictures(item), image_provider("none").pictures(item)
    assert first == again
    assert len(set(first)) == RETAINED
    own = np.asarray(Image.open(item.image))
    for path in first:
        assert np.asarray(Image.open(path)).shape == own.shape
        assert (np.asarray(Image.open(path)) != own).any()
    assert OwnImages(1).pictures(item) != first
    assert OwnImages().pictures(replace(item, id="b")) != first


def test_none_keeps_what_the_data_set_names_as_retrieved(item: Item, album: Path) -> None:
    given = tuple(sorted(album.rglob("*.png")))
    assert image_provider("none").pictures(replace(item, retrieved=given)) == given[:RETRIEVED]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("nine", "--images nine: did you mean 'none'"),
        ("folder:", "names no folder"),
        ("folder:gone", "there is no such folder"),
    ],
)
def test_another_name_is_refused(given: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        image_provider(given)


# --- CLIP ---


def test_vectors_are_those_of_transformers_with_unit_length(clip: Path) -> None:
    pictures, texts = [photo(seed) for seed in range(3)], ["tall tower building", "word " * 40]
    model: Any = CLIPModel.from_pretrained(clip)
    processor: Any = AutoProcessor.from_pretrained(clip)  # type: ignore[no-untyped-call]
    with torch.inference_mode():
        seen = model.get_image_features(**processor(images=pictures, return_tensors="pt")).pooler_output
        read = model.get_text_features(
            **processor(text=texts[:1], return_tensors="pt")
        ).pooler_output  # the second is cut off
    ours = Clip(str(clip))
    unit = torch.nn.functional.normalize
    np.testing.assert_allclose(ours.pictures(pictures), unit(seen, dim=-1).numpy(), atol=1e-5)
    np.testing.assert_allclose(ours.texts(texts)[:1], unit(read, dim=-1).numpy(), atol=1e-5)
    assert ours.texts(texts).shape == (2, tiny.FEATURES)


def test_what_is_no_clip_model_is_refused(tmp_path: Path, album: Path, clip: Path) -> None:
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UserError, match=r"--clip .*bert is of type 'bert', which is no CLIP model"):
        image_provider(f"folder:{album}", clip=str(tmp_path / "bert"))
    with pytest.raises(UserError, match=r"--clip \./gone: there is no model folder"):
        image_provider(f"folder:{album}", clip="./gone")
    with pytest.raises(UserError, match="not in the Hugging Face cache"):  # tests are offline
        image_provider(f"folder:{album}", clip="nobody/no-clip")


def test_weights_that_are_not_safetensors_are_not_loaded(tmp_path: Path, clip: Path, item: Item, album: Path) -> None:
    pickled = shutil.copytree(clip, tmp_path / "pickled")
    torch.save(CLIPModel.from_pretrained(clip).state_dict(), pickled / "pytorch_model.bin")
    (pickled / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"--clip .*pickled cannot be read: .*model\.safetensors"):
        image_provider(f"folder:{album}", clip=str(pickled)).prepare([item])


# --- a folder ---


def brute(clip: Path, text: str, files: list[Path], count: int = RETRIEVED) -> list[Path]:
    """Return the files nearest to a text, by a model of its own."""
    model = Clip(str(clip))
    scores = model.pictures([Image.open(file).convert("RGB") for file in files]) @ model.texts([text])[0]
    return [files[number] for number in np.argsort(-scores, kind="stable")[:count]]


def test_five_are_retrieved_by_name_and_ordered_by_likeness(clip: Path, album: Path, item: Item, private: Path) -> None:
    provider = image_provider(f"folder:{album}", clip=str(clip))
    provider.prepare([item])
    found = provider.pictures(item)
    assert set(found) == set(brute(clip, "Tall Tower building", sorted(album.rglob("*.png"))))
    model = Clip(str(clip))
    own, *others = model.pictures([Image.open(path).convert("RGB") for path in (item.image, *found)])
    np.testing.assert_allclose(provider.likeness(item), np.stack(others) @ own, atol=1e-4)
    assert list(provider.likeness(item)) == sorted(provider.likeness(item), reverse=True)
    assert provider.about("red", "colour")[0] == brute(clip, "red colour", sorted(album.rglob("*.png")))[0]
    assert provider.key() == {"images": f"folder:{album}", "clip": str(clip), "clip weights": model.content}


def test_an_item_without_a_name_is_searched_for_by_its_picture(
    clip: Path, album: Path, item: Item, private: Path
) -> None:
    provider = image_provider(f"folder:{album}", clip=str(clip))
    found = provider.pictures(replace(item, name=""))
    model, files = Clip(str(clip)), sorted(album.rglob("*.png"))
    scores = model.pictures([Image.open(file) for file in files]) @ model.pictures([Image.open(item.image)])[0]
    assert list(found) == [files[number] for number in np.argsort(-scores)[:RETRIEVED]]


def test_copies_are_dropped(clip: Path, tmp_path: Path, item: Item, private: Path) -> None:
    album = tmp_path / "copies"
    with Image.open(item.image) as own:
        save(own, album / "own again.png")
        save(own.resize((80, 80)), album / "own smaller.png")
        save(own, album / "own poor.jpg", quality=60)
    for seed in range(3):
        save(photo(seed), album / f"{seed}.png")
        save(photo(seed), album / f"{seed} again.bmp")
    found = image_provider(f"folder:{album}", clip=str(clip)).pictures(item)
    assert sorted(path.name[0] for path in found) == ["0", "1", "2"]


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return a list that grows by the number of pictures of each batch that goes through CLIP."""
    seen: list[int] = []
    real = Clip.pictures

    def pictures(self: Clip, some: Any) -> Any:
        seen.append(len(some))
        return real(self, some)

    monkeypatch.setattr(Clip, "pictures", pictures)
    return seen


def test_nothing_is_computed_twice_and_changes_are_seen(
    clip: Path, album: Path, item: Item, private: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = counted(monkeypatch)

    def found() -> tuple[Path, ...]:
        seen.clear()
        return image_provider(f"folder:{album}", clip=str(clip)).pictures(item)

    first = found()
    assert sum(seen) == 13  # the album and the item's own
    assert found() == first
    assert seen == []
    moved = album / "moved.png"
    first[0].rename(moved)
    assert moved in found()
    assert seen == []  # a moved file has the same content
    moved.unlink()
    assert moved not in found()
    changed = next(path for path in first[1:])
    save(photo(77), changed)
    save(photo(78), album / "new.png")
    found()
    assert seen == [2]


def test_another_model_has_vectors_of_its_own(
    clip: Path, tmp_path: Path, album: Path, item: Item, private: Path
) -> None:
    other = tiny.write_clip(tmp_path / "other", seed=1)
    one = image_provider(f"folder:{album}", clip=str(clip))
    two = image_provider(f"folder:{album}", clip=str(other))
    assert one.likeness(item) != two.likeness(item)
    assert len(list((private / "clip").glob("*/*.safetensors"))) == 4  # for each, the album's and the item's


def test_a_killed_index_goes_on(
    clip: Path, album: Path, item: Item, private: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kore_bench.augment.index.BATCH", 4)
    real, batches = Clip.pictures, []

    def pictures(self: Clip, some: Any) -> Any:
        batches.append(len(some))
        if len(batches) == 3:
            raise KeyboardInterrupt
        return real(self, some)

    monkeypatch.setattr(Clip, "pictures", pictures)
    with pytest.raises(KeyboardInterrupt):
        image_provider(f"folder:{album}", clip=str(clip)).prepare([item])
    batches[:] = [0, 0, 0]
    assert len(image_provider(f"folder:{album}", clip=str(clip)).pictures(item)) == RETRIEVED
    assert sum(batches) == 4 + 1  # the batch that was interrupted, and the item's own picture


def test_a_damaged_cache_is_computed_again(clip: Path, album: Path, item: Item, private: Path) -> None:
    first = image_provider(f"folder:{album}", clip=str(clip)).pictures(item)
    for file in (private / "clip").rglob("*.*"):
        if file.is_file():
            file.write_bytes(b"damaged")
    assert image_provider(f"folder:{album}", clip=str(clip)).pictures(item) == first


def test_unreadable_pictures_are_named_counted_and_left_out(
    clip: Path, album: Path, item: Item, private: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (album / "torn.png").write_bytes((album / "00.png").read_bytes()[:60])
    (album / "words.jpg").write_text("no picture")
    (album / "notes.txt").write_text("not meant as one")
    (album / ".hidden.png").write_text("nor this")
    for _ in range(2):  # the second time from the cache
        caplog.clear()
        provider = image_provider(f"folder:{album}", clip=str(clip))
        with caplog.at_level(logging.WARNING):
            provider.prepare([item])
        assert "2 of 14 pictures" in caplog.text
        assert "left out: torn.png cannot be read as an image" in caplog.text
        assert "; words.jpg cannot be read" in caplog.text
    save(photo(50), album / "torn.png")
    assert image_provider(f"folder:{album}", clip=str(clip)).pictures(item)


def test_a_folder_without_a_picture_that_can_be_read_is_refused(
    clip: Path, tmp_path: Path, item: Item, private: Path
) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="no picture in it or below"):
        image_provider(f"folder:{tmp_path / 'empty'}", clip=str(clip))
    (tmp_path / "empty" / "a.png").write_text("")
    with pytest.raises(UserError, match=r"no picture in it can be read: a\.png cannot be read"):
        image_provider(f"folder:{tmp_path / 'empty'}", clip=str(clip)).prepare([item])


def test_vectors_are_written_and_searched_in_parts(
    clip: Path, album: Path, item: Item, private: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = image_provider(f"folder:{album}", clip=str(clip)).pictures(item)
    shutil.rmtree(private)
    monkeypatch.setattr("kore_bench.augment.index._SHARD", 5)
    monkeypatch.setattr("kore_bench.augment.index.BATCH", 2)
    told: list[tuple[str, int, int]] = []
    provider = FolderImages(album, str(clip))
    provider.prepare([item], lambda *done: told.append(done))
    assert provider.pictures(item) == whole
    assert told[0] == ("images of the collection", 2, 12)
    assert ("images of the collection", 12, 12) in told
    assert told[-1] == ("image searches", 1, 1)
    assert len(os.listdir(next(path for path in (private / "clip").iterdir() if path.name != "listings"))) == 3


def test_the_command_searches_the_folder(
    clip: Path, album: Path, small_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [
        "augment",
        str(small_world),
        "--images",
        f"folder:{album}",
        "--out",
        str(tmp_path / "out"),
        "--limit",
        "2",
    ]
    with pytest.raises(SystemExit) as ended:
        main([*command, "--clip", str(clip)])
    assert ended.value.code == 0
    origins = [json.loads(line) for line in (tmp_path / "out" / "samples.jsonl").read_text().splitlines()]
    assert {row["part"] for row in origins if "likeness" in row} == {"recognition", "caption", "vqa"}
    searched = {file_digest(file) for file in album.rglob("*.png")}
    samples = json.loads((tmp_path / "out" / "llava.json").read_text())
    for sample in samples:
        found = file_digest(tmp_path / "out" / sample["image"]) in searched
        assert found is not sample["id"].endswith("dialogue")
    plan = json.loads((tmp_path / "out" / "plan.json").read_text())
    assert plan["clip"] == str(clip)
    with pytest.raises(SystemExit) as ended:
        main([*command, "--clip", str(tiny.write_clip(tmp_path / "other", seed=1))])
    assert ended.value.code == 2


def test_offline_is_said_before_clip_is_looked_for(
    album: Path, small_world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    monkeypatch.setattr("kore_bench.augment.session.go_offline", lambda: told.append("offline"))

    def looked(*_: object, **__: object) -> None:
        told.append("looked")
        raise ZeroDivisionError

    monkeypatch.setattr("kore_bench.augment.session.image_provider", looked)
    command = ["augment", str(small_world), "--images", f"folder:{album}", "--out", str(tmp_path / "out")]
    for more, wanted in ((["--offline"], ["offline", "looked"]), ([], ["looked"])):
        told.clear()
        with pytest.raises(ZeroDivisionError):
            main([*command, *more])
        assert told == wanted
