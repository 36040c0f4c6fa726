"""Who may come in, and how much: hosts, origins, tokens, sizes, times and the queue."""

import socket
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import pytest
from web_service import Clip, Running, eventually

from melisma.errors import MelismaError
from melisma.web import Settings, rest
from melisma.web.settings import is_local, named_models

TOKEN = "a-token-of-enough-letters"
Serve = Callable[..., AbstractContextManager[Running]]


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "evil.example"},
        {"host": "127.0.0.1.evil.example"},
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:1"},
    ],
)
def test_other_sites_are_refused(server: Running, headers: dict[str, str]) -> None:
    answer = server.client.get("/v1/models", headers=headers)
    assert answer.status_code == 403
    assert "error" in answer.json()


def test_the_services_own_page_may_ask(server: Running) -> None:
    assert server.client.get("/v1/models", headers={"origin": server.url}).status_code == 200


def test_a_token_is_asked_for_everywhere_but_of_health(serve: Serve, clip: Clip) -> None:
    with serve(host="0.0.0.0", token=TOKEN) as service:
        client = service.client
        assert client.get("/healthz").status_code == 200
        for path in ("/v1/models", "/metrics", "/openapi.json", "/"):
            answer = client.get(path)
            assert (answer.status_code, answer.headers["www-authenticate"][:6]) == (401, "Bearer")
        assert client.post("/v1/synth", files={"features": clip.npz}).status_code == 401
        for wrong in ("x", TOKEN[:-1], TOKEN + "x", "é"):
            header = f"Bearer {wrong}".encode()
            assert client.get("/v1/models", headers={b"authorization": header}).status_code == 401
        assert client.get("/v1/models", headers={"authorization": f"Bearer {TOKEN}"}).status_code == 200
        assert client.get("/v1/models", headers={"host": "elsewhere", "authorization": f"bearer {TOKEN}"}).is_success


def test_a_page_with_the_token_gets_a_cookie(serve: Serve) -> None:
    with serve(token=TOKEN) as service:
        answer = service.client.get(f"/v1/models?token={TOKEN}&a=1")
        assert (answer.status_code, answer.headers["location"]) == (303, "/v1/models?a=1")
        assert "HttpOnly" in answer.headers["set-cookie"]
        assert service.client.get("/v1/models").status_code == 200  # the client keeps cookies
        assert httpx.get(f"{service.url}/v1/models").status_code == 401
        assert httpx.get(f"{service.url}//evil.example/?token={TOKEN}").headers["location"].startswith("/evil")


def test_bodies_are_limited_by_their_promise_and_as_they_come(serve: Serve, clip: Clip) -> None:
    with serve(most_upload_bytes=10_000) as service:
        answer = service.client.post("/v1/resynth", files={"audio": clip.wav})
        assert answer.status_code == 413
        assert "larger than" in answer.json()["error"]

        def endless() -> object:
            yield b'--b\r\ncontent-disposition: form-data; name="features"; filename="a"\r\n\r\n'
            for _ in range(20):
                yield b"x" * 1000

        chunked = service.client.post(
            "/v1/resynth", content=endless(), headers={"content-type": "multipart/form-data; boundary=b"}
        )
        assert chunked.status_code == 413
        assert eventually(lambda: service.service.admitted == 0)


def slow_post(url: str, headers: str = "content-length: 1000") -> socket.socket:
    """A request whose body never comes."""
    host, port = url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)))
    head = (
        f"POST /v1/synth HTTP/1.1\r\nhost: {host}\r\ncontent-type: multipart/form-data; boundary=b\r\n{headers}\r\n\r\n"
    )
    connection.sendall(head.encode())
    return connection


def test_a_body_that_does_not_come_is_given_up(serve: Serve) -> None:
    with serve(upload_seconds=0.3) as service, slow_post(service.url) as connection:
        connection.settimeout(10)
        assert connection.recv(100).startswith(b"HTTP/1.1 408")
        assert eventually(lambda: service.service.admitted == 0)


def test_beyond_the_queue_the_answer_is_429(serve: Serve, clip: Clip) -> None:
    with serve(queue=2, workers=1) as service:
        waiting = [slow_post(service.url) for _ in range(3)]
        assert eventually(lambda: service.service.admitted == 3)
        answer = service.client.post("/v1/synth", files={"features": clip.npz})
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) >= 1
        assert "try again" in answer.json()["error"]
        assert service.client.get("/healthz").status_code == 200
        for connection in waiting:
            connection.close()
        assert eventually(lambda: service.service.admitted == 0)
        assert service.client.post("/v1/synth", files={"features": clip.npz}).status_code == 200


def test_the_work_ends_when_the_client_leaves(serve: Serve, clip: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(workers=1) as service:
        begun, steps = threading.Event(), list[int]()

        def endless(progress: Callable[[float], None]) -> None:
            begun.set()
            while True:
                steps.append(1)
                time.sleep(0.01)
                progress(0.5)

        monkeypatch.setattr(rest, "_sung", lambda *arguments: endless(arguments[-1]))
        with pytest.raises(httpx.ReadTimeout):
            service.client.post("/v1/synth", files={"features": clip.npz}, timeout=1.0)
        monkeypatch.undo()
        assert begun.is_set()
        assert eventually(lambda: service.service.admitted == 0)
        done = len(steps)
        time.sleep(0.1)
        assert len(steps) == done
        assert "melisma_clients_left_total 1.0" in service.client.get("/metrics").text
        assert service.client.post("/v1/synth", files={"features": clip.npz}).status_code == 200


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"host": "0.0.0.0"}, "token"),
        ({"host": "192.168.1.5"}, "token"),
        ({"host": "::"}, "token"),
        ({"token": "short"}, "16 characters"),
        ({"models": {}}, "no models"),
        ({"workers": 0}, "1 or more"),
        ({"port": 70000}, "65535"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, object], said: str) -> None:
    with pytest.raises(MelismaError, match=said):
        Settings(**settings)  # type: ignore[arg-type]


def test_what_is_this_machine() -> None:
    assert all(is_local(host) for host in ("localhost", "127.0.0.1", "127.1.2.3", "::1", "[::1]"))
    assert not any(is_local(host) for host in ("0.0.0.0", "::", "10.0.0.1", "example.org", "", "localhost.evil"))
    assert TOKEN not in repr(Settings(token=TOKEN))


def test_models_are_named_by_their_files(tmp_path: Path) -> None:
    (tmp_path / "mine.safetensors").touch()
    path = str(tmp_path / "mine.safetensors")
    assert named_models(["melisma-44k", "analytic", path]) == {
        "melisma-44k": "melisma-44k",
        "analytic": "analytic",
        "mine": path,
    }
    with pytest.raises(MelismaError, match="no such model"):
        named_models(["nope"])
    with pytest.raises(MelismaError, match="two models"):
        named_models([path, path])
