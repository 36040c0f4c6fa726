"""The Ray Serve application on a cluster of this machine, where Ray is installed."""

import importlib.util
import json
import os
import socket
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from web_service import Clip

from melisma.errors import MelismaError
from melisma.web.cluster import application, settings_of_replica

TOKEN = "a-token-of-enough-letters"
# In a process of its own: Ray starts servers, threads and handlers that outlive a test.
SCRIPT = """
import json, sys
import httpx, ray
from ray import serve
from melisma.web.cluster import application

port, features, token = int(sys.argv[1]), open(sys.argv[2], "rb").read(), sys.argv[3]
ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
serve.start(http_options={"host": "127.0.0.1", "port": port})
serve.run(application({"replicas": "2", "models": "analytic"}), name="melisma", route_prefix="/")
headers = {"authorization": f"Bearer {token}"}
with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120, headers=headers) as client:
    answers = [client.post("/v1/synth", files={"features": features}, data={"seed": "3"}) for _ in range(4)]
    report = {
        "status": [answer.status_code for answer in answers],
        "same": len({answer.content for answer in answers}) == 1,
        "size": len(answers[0].content),
        "bad": client.post("/v1/synth", files={"features": b"x"}).json(),
        "models": [model["name"] for model in client.get("/v1/models").json()],
        "stranger": httpx.get(f"http://127.0.0.1:{port}/v1/models").status_code,
    }
    running = serve.status().applications["melisma"].deployments["melisma"].replica_states
    report["replicas"] = sum(running.values())
print("REPORT " + json.dumps(report))
serve.shutdown()
ray.shutdown()
"""


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is an extra")
def test_replicas_answer_as_one_service(clip: Clip, tmp_path: Path) -> None:
    (tmp_path / "clip.npz").write_bytes(clip.npz)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-c", SCRIPT, str(port), str(tmp_path / "clip.npz"), TOKEN]
    environment = os.environ | {"MELISMA_TOKEN": TOKEN, "RAY_USAGE_STATS_ENABLED": "0"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads(done.stdout.partition("REPORT ")[2].splitlines()[0])
    assert report["status"] == [200] * 4
    assert report["same"]
    assert report["size"] > 100_000
    assert "not an .npz" in report["bad"]["error"]
    assert report["models"] == ["analytic"]
    assert report["stranger"] == 401
    assert report["replicas"] == 2


def test_a_replica_listens_to_others_with_a_token_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MELISMA_TOKEN", raising=False)
    assert settings_of_replica({}, 2, False).host == "127.0.0.1"
    monkeypatch.setenv("MELISMA_TOKEN", TOKEN)
    settings = settings_of_replica({"models": "analytic", "queue": "4"}, 2, True)
    assert (settings.host, settings.token, settings.workers, settings.queue) == ("0.0.0.0", TOKEN, 2, 4)
    assert (settings.device, list(settings.models)) == ("cuda", ["analytic"])


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is an extra")
@pytest.mark.parametrize("arguments", [{"replica": "2"}, {"replicas": "x"}, {"cores": "0"}, {"models": "nope"}])
def test_wrong_arguments_are_refused(arguments: dict[str, str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(MelismaError):
            application(arguments)
