"""Load on the service: many clients for minutes, then say what was answered and what the memory did.

    python benchmarks/service_load.py [--clients 20] [--seconds 120] [--url http://127.0.0.1:8765]

Without --url it starts ``melisma serve`` on a free port and stops it at the end. Every client sends, one request after
the other, recordings of 1 to 6 seconds with edits, features, and now and then an upload that is none, or leaves before
the answer. It fails on any answer but 200 and 429 (400 for what is no upload), and when the memory after the first
third grew by more than a tenth.
"""

import argparse
import asyncio
import collections
import io
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import httpx
import numpy as np

from melisma.audio.io import encode_audio
from melisma.audio.mel import OPENVPI_44K, log_mel
from melisma.data.singer import random_phrase

EDITS = {"steps": [{"kind": "snap", "scale": "C:maj", "strength": 0.8}, {"kind": "vibrato", "depth_cents": 30}]}
MOST_GROWTH = 1.10
_SAMPLE_SECONDS = 0.5


def clips() -> list[tuple[bytes, bytes]]:
    """Recordings and features of one to six seconds."""
    made = []
    for seed, seconds in enumerate((1.0, 2.0, 3.5, 6.0)):
        audio, f0_hz = random_phrase(np.random.default_rng(seed), seconds, 150.0, 500.0)
        mel = log_mel(audio, OPENVPI_44K)[0].numpy()
        packed = io.BytesIO()
        np.savez(packed, mel=mel, f0=np.pad(f0_hz, (0, mel.shape[1] - len(f0_hz))))
        made.append((encode_audio(audio, 44100, ".flac"), packed.getvalue()))
    return made


def start() -> tuple[subprocess.Popen[str], str]:
    """``melisma serve`` on a free port, and its address."""
    command = [sys.executable, "-m", "melisma", "serve", "--no-browser", "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    found = re.search(r"http://\S+", process.stdout.readline())
    if found is None:
        raise SystemExit("the service did not start")
    return process, found[0]


def resident_mb(pid: int) -> float:
    """Resident memory of a process."""
    return int(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) / 1024  # type: ignore[index]


async def client(
    number: int,
    url: str,
    until: float,
    material: list[tuple[bytes, bytes]],
    counts: collections.Counter[str],
    waits: list[float],
) -> None:
    rng = np.random.default_rng(number)
    async with httpx.AsyncClient(base_url=url, timeout=120) as session:
        while time.monotonic() < until:
            audio, features = material[int(rng.integers(len(material)))]
            kind, began = rng.random(), time.monotonic()
            try:
                if kind < 0.05:
                    answer = await session.post("/v1/resynth", files={"audio": audio[: len(audio) // 2]})
                    counts[f"damaged upload: {answer.status_code}"] += 1
                elif kind < 0.10:
                    await session.post("/v1/resynth", files={"audio": audio}, timeout=0.3)
                    counts["200"] += 1
                elif kind < 0.55:
                    answer = await session.post("/v1/synth", files={"features": features})
                    counts[str(answer.status_code)] += 1
                else:
                    data = {"edits": json.dumps(EDITS), "format": "flac"}
                    answer = await session.post("/v1/resynth", files={"audio": audio}, data=data)
                    counts[str(answer.status_code)] += 1
                waits.append(time.monotonic() - began)
            except httpx.TimeoutException:
                counts["left before the answer" if kind < 0.10 else "timed out"] += 1
                continue
            if answer.status_code == 429:
                await asyncio.sleep(0.2 * float(answer.headers["retry-after"]) * (0.5 + rng.random()))


async def press(url: str, clients: int, seconds: float, pid: int | None) -> bool:
    """Run the clients; print what came; return whether all is well."""
    material, counts, waits = clips(), collections.Counter[str](), list[float]()
    memory: list[float] = []

    async def watch() -> None:
        while pid is not None:
            memory.append(resident_mb(pid))
            await asyncio.sleep(_SAMPLE_SECONDS)

    watching = asyncio.create_task(watch())
    until = time.monotonic() + seconds
    await asyncio.gather(*(client(number, url, until, material, counts, waits) for number in range(clients)))
    watching.cancel()
    print(f"{clients} clients for {seconds:.0f} s: {sum(counts.values())} requests")
    for name, count in sorted(counts.items()):
        print(f"  {name:28} {count}")
    print(f"  wait: median {np.median(waits):.2f} s, 95 % {np.quantile(waits, 0.95):.2f} s")
    healthy = set(counts) <= {"200", "429", "left before the answer", "damaged upload: 400", "damaged upload: 429"}
    if memory:
        third = len(memory) // 3
        before, after = max(memory[third : 2 * third]), max(memory[2 * third :])
        print(f"  memory: {memory[0]:.0f} MB at first, {before:.0f} MB in the second third, {after:.0f} MB in the last")
        healthy &= after <= MOST_GROWTH * before
    await asyncio.sleep(1.0)  # an answer arrives a moment before its request is over
    admitted = httpx.get(f"{url}/healthz").json()["admitted"]
    print(f"  still admitted: {admitted}")
    return healthy and admitted == 0


def main() -> int:
    """Parse the command line and run; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--url", help="a service that runs already (its memory is not watched)")
    options = parser.parse_args()
    process, url = (None, options.url) if options.url else start()
    try:
        well = asyncio.run(press(url.rstrip("/"), options.clients, options.seconds, process and process.pid))
    finally:
        if process is not None:
            process.terminate()
            process.wait()
    print("all well" if well else "NOT well")
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
