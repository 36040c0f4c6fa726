"""Uploads that a service must survive: broken, lying, huge and hostile ones, and random damage to good ones."""

import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import soundfile

from melisma.audio.io import encode_audio
from melisma.data.singer import Note, sing


def good() -> dict[str, bytes]:
    """A short clip in every format, and features."""
    audio, f0_hz = sing([Note(220.0, 0.15, "a")], 44100, seed=0)
    clips = {kind: encode_audio(audio, 44100, f".{kind}") for kind in ("wav", "flac", "ogg", "mp3")}
    rng = np.random.default_rng(0)
    return clips | {"npz": npz(mel=rng.normal(-5, 1, (128, len(f0_hz))).astype(np.float32), f0=f0_hz)}


def npz(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def npy(header: str, content: bytes = b"", version: bytes = b"\x01\x00") -> bytes:
    """An array file with any header."""
    text = header.encode("latin-1")
    length = struct.pack("<H" if version == b"\x01\x00" else "<I", len(text))
    return b"\x93NUMPY" + version + length + text + content


def archive(members: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        for name, content in members.items():
            file.writestr(name, content)
    return buffer.getvalue()


def wav(
    channels: int = 1, rate: int = 44100, bits: int = 16, promised: int = 100, content: bytes = bytes(100)
) -> bytes:
    """A WAV file whose header may lie."""
    block = channels * bits // 8
    form = struct.pack("<HHIIHH", 1, channels, rate, rate * block & 0xFFFFFFFF, block & 0xFFFF, bits)
    head = b"RIFF" + struct.pack("<I", (promised + 36) & 0xFFFFFFFF) + b"WAVEfmt " + struct.pack("<I", 16) + form
    return head + b"data" + struct.pack("<I", promised) + bytes(100)


def silence(seconds: float, rate: int = 8000) -> bytes:
    """A long silence in a small file."""
    buffer = io.BytesIO()
    with soundfile.SoundFile(buffer, "w", rate, 1, format="FLAC", subtype="PCM_16") as file:
        block = np.zeros(rate * 60, dtype=np.int16)
        for _ in range(int(seconds // 60)):
            file.write(block)
    return buffer.getvalue()


def bomb(megabytes: int) -> bytes:
    """An .npz that unpacks to zeros without end."""
    header = npy(f"{{'descr': '<f4', 'fortran_order': False, 'shape': (128, {megabytes * 2048}), }}\n")
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file,
        file.open("mel.npy", "w", force_zip64=True) as member,
    ):
        member.write(header)
        for _ in range(megabytes):
            member.write(bytes(1 << 20))
    return buffer.getvalue()


def lying_sizes(content: bytes, size: int) -> bytes:
    """An archive whose list says that every member unpacks to ``size`` bytes."""
    data, at = bytearray(content), 0
    while (at := data.find(b"PK\x01\x02", at)) >= 0:
        data[at + 24 : at + 28] = struct.pack("<I", size)
        at += 46
    return bytes(data)


def hostile(long: bool = False) -> dict[str, Callable[[], bytes]]:
    """Uploads by name, each with one fault; the long form has the sizes that the short one stands for."""
    samples, shape = good(), "{{'descr': '{}', 'fortran_order': False, 'shape': {}, }}\n"
    mel, f0_hz = np.full((128, 20), -5.0), np.full(20, 200.0)
    corpus = _broken(samples) | {
        "a pickle": npz(mel=np.array([{}, None], dtype=object)),
        "a pickle that runs": archive({"mel.npy": npy(shape.format("|O", "(1,)"), pickle.dumps(print))}),
        "an array beyond memory": archive({"mel.npy": npy(shape.format("<f4", (128, 10**12)))}),
        "an array of negative size": archive({"mel.npy": npy(shape.format("<f4", (-1, 128)))}),
        "an array of no size": archive({"mel.npy": npy(shape.format("<f4", (0, 10**15)))}),
        "an array of many axes": archive({"mel.npy": npy(shape.format("<f4", (1,) * 60), bytes(4))}),
        "a number type of 2 GB": archive({"mel.npy": npy(shape.format("<U536870911", (1,)))}),
        "fields": npz(mel=np.zeros(4, dtype=[("a", "<f4")])),
        "a header that is code": archive({"mel.npy": npy("__import__('os').abort()\n")}),
        "a header that is deep": archive({"mel.npy": npy("(" * 9000 + "\n")}),
        "a header of 4 GB": archive({"mel.npy": b"\x93NUMPY\x02\x00\xff\xff\xff\xff"}),
        "not a number": npz(mel=mel * np.nan, f0=f0_hz),
        "an F0 beyond hearing": npz(mel=mel, f0=f0_hz * 1e30),
        "a contract that is no JSON": npz(mel=mel, f0=f0_hz, mel_contract=np.array("{")),
        "a contract of nonsense": npz(mel=mel, f0=f0_hz, mel_contract=np.array(json.dumps({"hop_length": 10**30}))),
    }
    large = {
        "a longer silence than allowed": lambda: silence(8 * 3600 if long else 600),
        "an archive bomb": lambda: bomb(8192 if long else 400),
        "a bomb that says it is small": lambda: lying_sizes(bomb(64), 100),
        "an archive of many": lambda: archive({f"a{k}.npy": b"" for k in range(20_000 if long else 500)}),
    }
    return {name: partial(bytes, content) for name, content in corpus.items()} | large


def _broken(samples: dict[str, bytes]) -> dict[str, bytes]:
    """What is no upload at all, or the beginning of one."""
    corpus = {
        "nothing": b"",
        "text": b"hello" * 50,
        "page": b"<!doctype html><script>alert(1)</script>",
        "picture": b"\x89PNG\r\n\x1a\n" + bytes(200),
        "elf": b"\x7fELF" + bytes(300),
        "zeros": bytes(100_000),
        "flac of the past": b"fLaC" + b"\x80\x00\x00\x22" + b"\xff" * 34,
        "flac without end": samples["flac"][:18] + b"\xff\xff\xff\xff\xff" + samples["flac"][23:],
        "wav of 65535 channels": wav(channels=65535),
        "wav without channels": wav(channels=0),
        "wav of no rate": wav(rate=0),
        "wav of a great rate": wav(rate=0xFFFFFFFF),
        "wav of a rate of one": wav(rate=1),
        "wav that promises 2 GB": wav(promised=0x7FFFFFF0),
        "wav that promises 4 GB": wav(promised=0xFFFFFFF0),
        "wav of 64 bits": wav(bits=64),
        "wav with a chunk of 4 GB": b"RIFF\xff\xff\xff\xffWAVEjunk\xff\xff\xff\xff" + bytes(100),
        "an archive that says it is huge": lying_sizes(samples["npz"], 0xFFFFFFF0),
        "an archive of archives": archive({"mel.npy": archive({"mel.npy": samples["npz"]})}),
        "an archive of paths": archive({"../../../tmp/leak.npy": b"x", "/etc/passwd.npy": b"x"}),
        "an empty archive": archive({}),
        "twice the same name": archive({"mel.npy": b"x", "mel": b"x"}),
        "a bare pickle": pickle.dumps({"mel": 1}),
    }
    for kind, content in samples.items():
        for share in (0.02, 0.3, 0.9, 0.999):
            corpus[f"{kind} cut at {share:g}"] = content[: int(share * len(content))]
    return corpus


def damaged(rng: np.random.Generator) -> Iterator[bytes]:
    """Good files with random damage, without end: flipped bytes, holes, repeats, foreign pieces."""
    samples = list(good().values())
    while True:
        data = bytearray(samples[rng.integers(len(samples))])
        for _ in range(int(rng.integers(1, 6))):
            at, length = int(rng.integers(len(data))), int(rng.integers(1, 40))
            kind = rng.integers(4)
            if kind == 0:
                data[at : at + length] = rng.bytes(min(length, len(data) - at))
            elif kind == 1:
                del data[at : at + int(rng.integers(1, 2000))]
            elif kind == 2:
                data[at:at] = data[at : at + 500]
            else:
                data[at : at + 4] = [b"\xff\xff\xff\xff", b"\x00\x00\x00\x00", b"\x7f\xff\xff\xff"][rng.integers(3)]
            if not data:
                break
        yield bytes(data)
