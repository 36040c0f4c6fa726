"""How soon an edit in a three-minute song is heard in the studio: ``python benchmarks/studio_latency.py [--edits N]``.

A service runs on this machine with the shipped model; a client does what the page does: send the edits, wait for the
news of the first piece, fetch its samples. The time runs from the edit to the samples. Every edit moves one note of the
song by two semitones; the time until all of its stretch is sung is given too.
"""

import argparse
import os
import socket
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import torch
import uvicorn

from melisma.audio.io import encode_audio
from melisma.data.singer import Note, Voice, sing
from melisma.web import Settings, create_app

API = "/studio/api"
SECONDS = 180
SCALE = (220.0, 246.9, 261.6, 293.7, 329.6, 349.2, 392.0)


def song() -> bytes:
    """Three minutes of phrases of four notes with pauses between them, as a wav file."""
    rng = np.random.default_rng(0)
    notes: list[Note] = []
    while len(notes) < 60:
        for _ in range(4):
            f0_hz, seconds, vowel = rng.choice(SCALE), rng.uniform(0.3, 0.8), rng.choice(list("aeiou"))
            notes.append(Note(float(f0_hz), float(seconds), str(vowel), "m"))
        notes.append(Note(0.0, 0.4, "a"))
    audio, _ = sing(notes, 44100, seed=1, voice=Voice())
    return encode_audio(np.resize(np.asarray(audio, dtype=np.float32), SECONDS * 44100), 44100, ".wav")


def opened(client: httpx.Client, wav: bytes) -> dict[str, Any]:
    """Open the song and wait until it is analysed."""
    told = client.post(f"{API}/sessions", params={"name": "song.wav"}, content=wav).json()
    while "frames" not in told:
        time.sleep(0.05)
        told = client.get(f"{API}/sessions/{told['id']}").json()
        if told["error"]:
            raise SystemExit(told["error"])
    return told


def edit(client: httpx.Client, told: dict[str, Any], steps: list[dict[str, Any]]) -> tuple[float, float]:
    """Milliseconds until the first sound of the newest step, and until all of it is sung."""
    at = f"{API}/sessions/{told['id']}"
    focus_s = max(0.0, steps[-1]["start_s"] - 0.1)
    seen = client.get(f"{at}/news").json()["seen"]
    began = time.perf_counter()
    client.put(f"{at}/edits", params={"focus_s": focus_s}, json={"steps": steps}).raise_for_status()
    first = 0.0
    while True:
        query = {"generation": told["generation"], "seen": seen, "wait_s": 5}
        news = client.get(f"{at}/news", params=query).json()
        for start, stop in news["spans"]:
            samples = client.get(f"{at}/audio", params={"which": "result", "first": start, "last": stop}).content
            if samples and not first:
                first = time.perf_counter() - began
        seen = news["seen"]
        if not news["busy"]:
            return 1000 * first, 1000 * (time.perf_counter() - began)


def main() -> None:
    """Run the edits and print what they took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edits", type=int, default=20)
    parser.add_argument("--model", default="melisma-44k")
    given = parser.parse_args()
    app = create_app(Settings(models={Path(given.model).stem: given.model}))
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    with httpx.Client(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=120) as client:
        began = time.perf_counter()
        told = opened(client, song())
        print(f"{told['seconds']:.0f} s, {len(told['notes'])} notes, opened in {time.perf_counter() - began:.1f} s")
        rng = np.random.default_rng(1)
        chosen = rng.choice(len(told["notes"]), size=given.edits, replace=False)
        steps: list[dict[str, Any]] = []
        times = []
        for index in chosen:
            note = told["notes"][int(index)]
            steps.append({"kind": "move", "start_s": note["start_s"], "stop_s": note["stop_s"], "semitones": 2})
            times.append(edit(client, told, steps))
    server.should_exit = True
    thread.join()
    first, whole = np.array(times).T
    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    print(f"{torch.get_num_threads()} threads, {cores} cores, load {load:.1f}, {given.edits} edits; milliseconds:")
    for name, each in (("first sound", first), ("all of it", whole)):
        print(f"{name:12} median {np.median(each):.0f}, 95 % {np.quantile(each, 0.95):.0f}, worst {each.max():.0f}")


if __name__ == "__main__":
    main()
