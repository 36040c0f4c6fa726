"""The service's side of the decoder's process: start it, read what it found, kill it when it takes too much."""

import asyncio
import json
import math
import os
import sys
from asyncio.subprocess import Process
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Any

import numpy as np

from melisma.errors import MelismaError
from melisma.web.settings import Settings

_LONGEST_LINE = 1 << 16
_CHUNK = 1 << 20
# All that the decoder's process gets to know of this one.
_ENVIRONMENT = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "HOME")


@dataclass(frozen=True)
class Recording:
    """A decoded upload.

    Attributes:
        samples: ``(channels, samples)`` float32.
        sample_rate: Hz.
        sample_format: how its file held them, see :class:`melisma.audio.io.AudioReader`.
    """

    samples: np.ndarray
    sample_rate: int
    sample_format: str

    @property
    def seconds(self) -> float:
        """Length."""
        return self.samples.shape[1] / self.sample_rate


async def decode_audio(file: IO[bytes], settings: Settings, name: str = "the upload") -> Recording:
    """Decode an audio file; ``file`` has a descriptor and is read from its beginning.

    Raises:
        MelismaError: not audio, truncated, too long, too large, or the decoder crashed or took too long.
    """
    facts, arrays = await _decode("audio", file, settings, name)
    return Recording(arrays["audio"].T, int(facts["sample_rate"]), str(facts["sample_format"]))


async def decode_arrays(file: IO[bytes], settings: Settings, name: str = "the upload") -> dict[str, np.ndarray]:
    """Read the arrays of an ``.npz``; see :func:`decode_audio`."""
    _, arrays = await _decode("arrays", file, settings, name)
    return arrays


async def _decode(
    kind: str, file: IO[bytes], settings: Settings, name: str
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    process = await _started(kind, file, settings)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(settings.decode_seconds):
            facts = json.loads(await process.stdout.readuntil(b"\n"))
            if "error" in facts:
                raise MelismaError(f"{name}: {facts['error']}")
            arrays: dict[str, np.ndarray] = {}
            for key, dtype, shape in facts["arrays"]:
                room = settings.most_decoded_bytes - sum(array.nbytes for array in arrays.values())
                arrays[key] = await _array(process.stdout, dtype, shape, room)
            return facts, arrays
    except TimeoutError as error:
        raise MelismaError(f"{name}: decoding took more than {settings.decode_seconds:.0f} s; send less") from error
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError, KeyError, TypeError) as error:
        raise MelismaError(f"{name}: the decoder broke down on it; convert it with ffmpeg and send it again") from error
    finally:
        await _ended(process)


async def _started(kind: str, file: IO[bytes], settings: Settings) -> Process:
    """The decoder's process, with the upload as its standard input."""
    file.flush()
    os.lseek(file.fileno(), 0, os.SEEK_SET)
    starting = asyncio.ensure_future(
        asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "melisma.web.decoder", kind, str(settings.most_seconds), str(settings.most_decoded_bytes)),
            *(str(settings.decoder_memory_bytes), str(math.ceil(settings.decode_seconds))),
            stdin=file.fileno(),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env={key: os.environ[key] for key in _ENVIRONMENT if key in os.environ}
            | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            limit=_LONGEST_LINE,
            start_new_session=True,
        )
    )
    try:
        return await asyncio.shield(starting)
    except asyncio.CancelledError:  # half-started processes are nobody's: it starts, and ends
        await _ended(await starting)
        raise


async def _ended(process: Process) -> None:
    with suppress(ProcessLookupError):
        process.kill()
    await process.wait()


async def _array(stream: asyncio.StreamReader, dtype: str, shape: list[int], room: int) -> np.ndarray:
    """Read an array; the decoder is not believed that it keeps to its limits."""
    kind = np.dtype(dtype)
    if kind.kind not in "fiuU" or min(shape, default=0) < 0 or math.prod(shape) * kind.itemsize > room:
        raise ValueError("not what was asked for")
    array = np.empty(shape, dtype=kind)
    view, at = array.reshape(-1).view(np.uint8), 0
    while at < array.nbytes:
        block = await stream.read(min(_CHUNK, array.nbytes - at))
        if not block:
            raise asyncio.IncompleteReadError(b"", None)
        view[at : at + len(block)] = np.frombuffer(block, dtype=np.uint8)
        at += len(block)
    return array
