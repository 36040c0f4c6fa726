"""A dataset gives back what was written, at any place, and its shards are what WebDataset groups."""

import io
import json
import pickle
import re
import tarfile
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest
import soundfile

from melisma.data.dataset import SAMPLE_TYPES, Dataset
from melisma.data.shards import DatasetWriter, NewClip
from melisma.errors import MelismaError

RATE, HOP = 16000, 128
# webdataset/tariterators.py: what makes two members belong together.
WEBDATASET_KEY = re.compile(r"^((?:.*/|)[^.]+)[.]([^/]*)$")


def clip(key: str, frames: int = 40, seed: int = 0, twin: float = 0.0, **more: object) -> NewClip:
    rng = np.random.default_rng(seed)
    audio, other = rng.uniform(-0.9, 0.9, (2, frames * HOP)).astype(np.float32)
    f0_hz = np.where(np.arange(frames) % 4 == 0, 0.0, 200.0 + np.arange(frames)).astype(np.float32)
    return NewClip(key, "singing", audio, f0_hz, 7500.0, "anna", other if twin else None, twin, **more)  # type: ignore[arg-type]


def write(folder: Path, *clips: NewClip, **settings: object) -> Dataset:
    with DatasetWriter(folder, RATE, HOP, **settings) as writer:  # type: ignore[arg-type]
        for one in clips:
            writer.add(one)
    return Dataset.open(folder)


@pytest.mark.parametrize("sample_format", SAMPLE_TYPES)
def test_any_stretch_is_what_was_written(tmp_path: Path, sample_format: str) -> None:
    given = [clip("a", 40, 0), clip("лес/b c", 17, 1, twin=-3.5), clip("d", 64, 2, twin=2.0)]
    dataset = write(tmp_path, *given, sample_format=sample_format, shard_bytes=4000)
    assert len(list(tmp_path.glob("shard-*.tar"))) == 3
    exact = 0.0 if sample_format == "float" else 2.0**-16
    for index, one in enumerate(given):
        entry = dataset.clips[index]
        assert (entry.key, entry.frames, entry.samples) == (one.key, len(one.f0_hz), len(one.audio))
        assert (entry.kind, entry.speaker, entry.band_hz) == ("singing", "anna", 7500.0)
        assert entry.twin_semitones == one.twin_semitones
        assert dataset.median_f0_hz(index) == np.median(one.f0_hz[one.f0_hz > 0])
        for start, length in ((0, entry.samples), (517, 700), (entry.samples - 5, 5), (3, 0)):
            found = dataset.audio(index, start, length)
            assert found.dtype == np.float32
            assert np.abs(found - one.audio[start : start + length]).max(initial=0.0) <= exact
            twin = dataset.twin(index, start, length)
            assert (twin is None) == (one.twin is None)
            if twin is not None and one.twin is not None:
                assert np.abs(twin - one.twin[start : start + length]).max(initial=0.0) <= exact
        assert np.array_equal(dataset.f0_hz(index, 3, 9), one.f0_hz[3:12])


def test_beyond_the_ends_is_silence_without_pitch(tmp_path: Path) -> None:
    one = clip("a", 10)
    dataset = write(tmp_path, one, clip("b", 10, 1), sample_format="float")
    around = dataset.audio(0, -100, one.audio.size + 300)
    assert np.array_equal(around, np.pad(one.audio, (100, 200)))
    assert np.array_equal(dataset.f0_hz(0, -2, 14), np.pad(one.f0_hz, 2))
    assert not dataset.audio(0, 10**6, 50).any()
    assert not dataset.f0_hz(0, -50, 20).any()


def test_shards_are_grouped_by_webdatasets_rule_and_hold_plain_files(tmp_path: Path) -> None:
    long = "a folder/" + "ö" * 120
    write(tmp_path, clip("v1.2/b c", twin=1.0, facts={"licence": "CC0"}), clip(long, 8), clip("z", 8))
    with tarfile.open(tmp_path / "shard-00000.tar") as tar:
        members = {info.name: tar.extractfile(info).read() for info in tar}  # type: ignore[union-attr]
    matches = [WEBDATASET_KEY.match(name) for name in members]
    groups = {key: [m[2] for m in group] for key, group in groupby(matches, lambda m: m[1])}  # type: ignore[index]
    plain = ["wav", "json", "f0.npy"]
    assert groups == {"v1.2/b c": [*plain, "twin.wav"], long: plain, "z": plain}
    audio, rate = soundfile.read(io.BytesIO(members["v1.2/b c.wav"]), dtype="float32")
    assert rate == RATE
    assert np.abs(audio - clip("x").audio).max() <= 2.0**-16
    assert np.array_equal(np.load(io.BytesIO(members["v1.2/b c.f0.npy"])), clip("x").f0_hz)
    facts = json.loads(members["v1.2/b c.json"])
    assert (facts["licence"], facts["sample_rate"], facts["speaker"]) == ("CC0", RATE, "anna")


def test_float_files_are_read_by_others(tmp_path: Path) -> None:
    write(tmp_path, clip("a"), sample_format="float")
    with tarfile.open(tmp_path / "shard-00000.tar") as tar:
        audio, _ = soundfile.read(tar.extractfile("a.wav"), dtype="float32")
    assert np.array_equal(audio, clip("a").audio)


def test_the_same_clips_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write(tmp_path / name, clip("a"), clip("b", 9, 1, twin=4.0), shard_bytes=1)
    names = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert names == ["index.json", "shard-00000.tar", "shard-00001.tar"]
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_it_travels_to_other_processes(tmp_path: Path) -> None:
    dataset = write(tmp_path, clip("a"))
    before = dataset.audio(0, 10, 20)
    there = pickle.dumps(dataset)
    assert len(there) < 5000
    assert np.array_equal(pickle.loads(there).audio(0, 10, 20), before)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (clip("a.b"), "cannot name a clip"),
        (clip("/a"), "cannot name a clip"),
        (clip("folder/"), "cannot name a clip"),
        (clip("first"), "two clips"),
        (NewClip("a", "made", np.zeros(HOP), np.zeros(2), 1.0), "2 values of F0 need 256 samples, not 128"),
        (NewClip("a", "made", np.zeros(0), np.zeros(0), 1.0), "0 values of F0"),
        (NewClip("a", "made", np.zeros(HOP), np.zeros(1), 1.0, twin=np.zeros(HOP)), "a twin at the same pitch"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, wrong: NewClip, message: str) -> None:
    with DatasetWriter(tmp_path, RATE, HOP) as writer:
        writer.add(clip("first"))
        with pytest.raises(MelismaError, match=message):
            writer.add(wrong)
    assert [one.key for one in Dataset.open(tmp_path).clips] == ["first"]


def test_an_interrupted_or_damaged_dataset_is_none(tmp_path: Path) -> None:
    with pytest.raises(MelismaError, match="no such folder; make one with: melisma prepare"):
        Dataset.open(tmp_path / "nowhere")
    write(tmp_path, clip("a"), clip("b"), shard_bytes=1)
    with pytest.raises(MelismaError, match="two clips"):
        write(tmp_path, clip("a"), clip("a"))
    assert not list(tmp_path.glob(".*"))
    with pytest.raises(MelismaError, match=r"holds no dataset \(index.json is missing"):
        Dataset.open(tmp_path)
    with pytest.raises(MelismaError, match="no clip to make a dataset from"), DatasetWriter(tmp_path, RATE, HOP):
        pass
    write(tmp_path, clip("a"))
    assert not (tmp_path / "shard-00001.tar").exists()
    with (tmp_path / "shard-00000.tar").open("ab") as file:
        file.truncate(2000)
    with pytest.raises(MelismaError, match=r"shard-00000\.tar: missing, or not the \d+ bytes"):
        Dataset.open(tmp_path)
    for text in ("no json", "[]", '{"format": 1}', '{"format": 1, "sample_format": "pcm16", "clips": [{}]}'):
        (tmp_path / "index.json").write_text(text)
        with pytest.raises(MelismaError, match=r"index\.json: not the index of a dataset"):
            Dataset.open(tmp_path)
    (tmp_path / "index.json").write_text('{"format": 99}')
    with pytest.raises(MelismaError, match="format 99, this melisma reads 1"):
        Dataset.open(tmp_path)
