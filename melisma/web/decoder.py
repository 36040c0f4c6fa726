"""Reads an upload in a process of its own: ``python -m melisma.web.decoder``.

Whatever an upload does to a decoder (a crash, a bomb, an endless loop), it does to this process, which may use so much
memory and time, may write no file, and knows nothing of the service. The upload is its standard input. What it found
goes to its standard output: one line of JSON, then the arrays' bytes; ``{"error": line}`` where it found nothing.

An unnamed file is read through ``/dev/fd/0``, so this needs Linux.
"""

import io
import json
import math
import resource
import sys
import zipfile
from typing import Any, BinaryIO

import numpy as np

from melisma.errors import MelismaError

UPLOAD = "/dev/fd/0"
_BLOCK = 1 << 16
_MOST_ARRAYS = 16
_LONGEST_TEXT = 10_000
_SPARE_SECONDS = 2


def main() -> None:
    """Decode standard input; arguments: kind, most seconds, most bytes, memory in bytes, seconds of CPU."""
    kind, most_seconds, most_bytes, memory, cpu_seconds = sys.argv[1:]
    _confine(int(memory), int(cpu_seconds))
    out = sys.stdout.buffer
    try:
        {"audio": _audio, "arrays": _arrays}[kind](out, float(most_seconds), int(most_bytes))
    except MelismaError as error:
        _say(out, {"error": str(error).removeprefix(f"{UPLOAD}: ")})
    except MemoryError:
        _say(out, {"error": "needs more memory to decode than the service allows; send less"})


def _confine(memory: int, cpu_seconds: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_seconds, cpu_seconds + _SPARE_SECONDS))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))


def _say(out: BinaryIO, facts: dict[str, Any]) -> None:
    out.write(json.dumps(facts).encode() + b"\n")
    out.flush()


def _audio(out: BinaryIO, most_seconds: float, most_bytes: int) -> None:
    from melisma.audio.io import AudioReader, duration_seconds

    promised = duration_seconds(UPLOAD)
    if promised is not None and promised > most_seconds:
        raise MelismaError(_too_long(promised, most_seconds))
    with AudioReader(UPLOAD) as reader:
        seconds = reader.frames / reader.sample_rate
        if seconds > most_seconds:
            raise MelismaError(_too_long(seconds, most_seconds))
        size = 4 * reader.frames * reader.channels
        if size > most_bytes:
            raise MelismaError(
                f"{size >> 20} MB when decoded; the service takes {most_bytes >> 20} MB: "
                "send fewer channels, a lower rate or a shorter part"
            )
        _say(
            out,
            {
                "sample_rate": reader.sample_rate,
                "sample_format": reader.sample_format,
                "arrays": [["audio", "<f4", [reader.frames, reader.channels]]],
            },
        )
        for start in range(0, reader.frames, _BLOCK):
            block = reader.read(start, _BLOCK)
            out.write(np.ascontiguousarray(block.T, dtype="<f4").tobytes())
    out.flush()


def _too_long(seconds: float, most: float) -> str:
    length = f"{seconds:.0f} s" if math.isfinite(seconds) else "endless"
    return f"{length} long; the service takes {most:.0f} s: send a shorter part"


def _arrays(out: BinaryIO, most_seconds: float, most_bytes: int) -> None:
    """All arrays of an .npz, and texts of no more than a page."""
    try:
        with open(UPLOAD, "rb") as handle, zipfile.ZipFile(io.BytesIO(handle.read())) as archive:  # noqa: PTH123
            members = archive.infolist()
            if len(members) > _MOST_ARRAYS:
                raise MelismaError(f"{len(members)} arrays; send the mel, the F0 and nothing else")
            size = sum(member.file_size for member in members)
            if size > most_bytes:
                raise MelismaError(f"{size >> 20} MB when unpacked; the service takes {most_bytes >> 20} MB")
            arrays = {member.filename.removesuffix(".npy"): _array(archive, member) for member in members}
    except (zipfile.BadZipFile, ValueError, OSError, EOFError, NotImplementedError, RuntimeError) as error:
        raise MelismaError("not an .npz of plain arrays; save it with numpy.savez(path, mel=mel, f0=f0)") from error
    _say(out, {"arrays": [[name, array.dtype.str, array.shape] for name, array in arrays.items()]})
    for array in arrays.values():
        out.write(array.tobytes())
    out.flush()


def _array(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> np.ndarray:
    """One array; what its header promises must be what the archive's list says, before room is made for it."""
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        read_header = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }.get(version)
        if read_header is None:
            raise ValueError(f"version {version}")
        shape, fortran, dtype = read_header(file, max_header_size=_LONGEST_TEXT)
        if dtype.hasobject or dtype.kind not in "fiuU" or (dtype.kind == "U" and dtype.itemsize > 4 * _LONGEST_TEXT):
            raise MelismaError(f"{member.filename}: holds {dtype}; send numbers only")
        count = math.prod(shape)
        if len(shape) > 8 or count * dtype.itemsize > member.file_size:
            raise MelismaError(f"{member.filename}: promises {shape}, which is more than it holds; save it again")
        content = file.read(count * dtype.itemsize)
    return np.frombuffer(content, dtype=dtype).reshape(shape, order="F" if fortran else "C")


if __name__ == "__main__":
    main()
