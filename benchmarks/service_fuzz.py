"""Fuzz the service: the hostile corpus in full size, random damage, and schemathesis against its OpenAPI document.

    python benchmarks/service_fuzz.py [--minutes 5] [--skip-schemathesis]

It starts ``melisma serve`` with its usual limits, sends the corpus of tests/web/upload_corpus.py (8 hours of silence,
an archive that unpacks to 8 GB, ...), then good files with random damage until the time is over, then runs
schemathesis. It fails on any answer of 500 or more, when a file is left in the service's folder of temporary files,
when a process is, or when the service is gone.
"""

import argparse
import collections
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import numpy as np
from service_load import start

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "web"))
from upload_corpus import damaged, hostile  # noqa: E402

_SLOW_SECONDS = 20.0
_OF_ONNXRUNTIME = ".ses"  # it writes this one when it is imported, whatever is uploaded


def send(client: httpx.Client, name: str, content: bytes, counts: collections.Counter[str]) -> bool:
    """Send an upload to both routes; whether both were answered as they should."""
    well = True
    for route, part in (("resynth", "audio"), ("synth", "features")):
        began = time.monotonic()
        answer = client.post(f"/v1/{route}", files={part: content}, data={"projections": "0", "model": "analytic"})
        took = time.monotonic() - began
        counts[f"{route} {answer.status_code}"] += 1
        line = answer.json()["error"] if answer.status_code != 200 else ""
        if answer.status_code not in (200, 400, 413) or "\n" in line or took > _SLOW_SECONDS:
            print(f"  {name}: {route} {answer.status_code} in {took:.1f} s: {line}")
            well = False
    return well


def children(pid: int) -> list[str]:
    """Processes that a process started and that are still there."""
    return [word for task in Path(f"/proc/{pid}/task").iterdir() for word in (task / "children").read_text().split()]


def fuzz(url: str, minutes: float) -> bool:
    """The corpus, then random damage."""
    counts, well = collections.Counter[str](), True
    with httpx.Client(base_url=url, timeout=180) as client:
        for name, make in hostile(long=True).items():
            well &= send(client, name, make(), counts)
        rng, until = np.random.default_rng(), time.monotonic() + 60 * minutes
        for number, content in enumerate(damaged(rng)):
            if time.monotonic() > until:
                break
            if not send(client, f"damage {number}", content, counts):
                Path(f"fuzz-{number}.bin").write_bytes(content)
                well = False
        time.sleep(1.0)  # an answer arrives a moment before its request is over
        admitted = client.get("/healthz").json()["admitted"]
    print("\n".join(f"  {name:14} {count}" for name, count in sorted(counts.items())))
    return well and admitted == 0


def main() -> int:
    """Parse the command line and run; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--skip-schemathesis", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TMPDIR"] = folder
        process, url = start()
        url = url.rstrip("/")
        try:
            well = fuzz(url, options.minutes)
            if not options.skip_schemathesis:
                command = [str(Path(sys.executable).parent / "schemathesis"), "run", f"{url}/openapi.json"]
                checks = ["--exclude-checks", "positive_data_acceptance"]  # no schema says that bytes are audio
                well &= subprocess.run([*command, *checks, "--max-examples", "30"]).returncode == 0
            alive = process.poll() is None and httpx.get(f"{url}/healthz").status_code == 200
            names = {path.name for path in Path(folder).iterdir()} - {_OF_ONNXRUNTIME}
            left = sorted(names), children(process.pid)
            print(f"alive: {alive}; files left: {left[0]}; processes left: {left[1]}")
            well &= alive and not any(left)
        finally:
            process.terminate()
            process.wait()
    print("all well" if well else "NOT well")
    return 0 if well else 1


if __name__ == "__main__":
    sys.exit(main())
