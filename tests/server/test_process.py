"""The real server with the real model in a process of its own, as an operator meets it."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import httpx2
import pytest

from models.bundle import MODEL
from server.http.protocol import PIPELINED_REQUESTS
from tests.server.conftest import Process, clean_environment, real_server, until, wait_until_ready

TICKETS = {
    "My payment failed twice": "billing",
    "Where's my invoice?": "billing",
    "App keeps crashing on iOS": "technical",
    "Can't log in": "technical",
    "Question about my plan": "general",
}


def test_a_thousand_concurrent_tickets_and_a_quiet_end(tmp_path: Path) -> None:
    texts = [list(TICKETS)[number % len(TICKETS)] for number in range(1000)]

    async def load(url: str) -> list[httpx2.Response]:
        limits = httpx2.Limits(max_connections=200)
        async with httpx2.AsyncClient(base_url=url, limits=limits, timeout=60) as client:
            return await asyncio.gather(*(client.post("/classify", json={"text": text}) for text in texts))

    with real_server(tmp_path) as server:
        assert wait_until_ready(server.url).json()["model"].startswith("supportbot@")
        responses = asyncio.run(load(server.url))
        assert {response.status_code for response in responses} == {200}
        assert [response.json()["prediction"] for response in responses] == [TICKETS[text] for text in texts]
        assert server.stop() == 0
    log = [json.loads(line) for line in server.log]
    requests = [line for line in log if line["event"] == "request" and line["path"] == "/classify"]
    assert len(requests) == 1000
    assert all({"method", "status", "ms", "request_id", "texts"} <= set(line) for line in requests)
    assert not any(text in line for line in server.log for text in TICKETS)


def test_sigterm_under_load_loses_no_request(tmp_path: Path) -> None:
    """64 clients send without a pause until they are told, by a 503, that the server stops; no request may end otherwise."""
    answered = 0

    async def client(url: str, number: int) -> str:
        nonlocal answered
        text = list(TICKETS)[number % len(TICKETS)]
        async with httpx2.AsyncClient(base_url=url, timeout=30) as session:
            while (response := await session.post("/classify", json={"text": text})).status_code == 200:
                assert response.json()["prediction"] == TICKETS[text]
                answered += 1
        assert response.status_code == 503
        assert response.headers["connection"] == "close"
        return str(response.json()["error"]["code"])

    async def main(url: str) -> list[str]:
        clients = [asyncio.create_task(client(url, number)) for number in range(64)]
        await until(lambda: answered > 300)
        server.popen.terminate()
        return await asyncio.gather(*clients)

    # The port stays open long enough for every client, on however busy a machine, to come back once and be told.
    with real_server(tmp_path, ACCESS_LOG="false", DRAIN_LINGER_MS="3000") as server:
        wait_until_ready(server.url)
        assert asyncio.run(main(server.url)) == ["draining"] * 64
        assert server.popen.wait(20) == 0


def test_a_damaged_bundle_is_never_ready_and_says_why(bundle_copy: Path, tmp_path: Path) -> None:
    content = bytearray((bundle_copy / MODEL).read_bytes())
    content[1000] ^= 1
    (bundle_copy / MODEL).write_bytes(content)
    with real_server(tmp_path, BUNDLE=str(bundle_copy)) as server:
        deadline = time.monotonic() + 20
        while "loaded" in (response := httpx2.get(f"{server.url}/ready")).text:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert response.status_code == 503
        assert "its SHA-256 is not the manifest's" in response.json()["error"]["message"]
        assert httpx2.get(f"{server.url}/health").json() == {"status": "ok"}
        refused = httpx2.post(f"{server.url}/classify", json={"text": "hello"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "not_ready")
        assert server.stop() == 0


def test_a_bad_setting_stops_the_start_and_names_its_variable(tmp_path: Path) -> None:
    with real_server(tmp_path, PORT="eighty") as server:
        assert server.popen.wait(20) == 2
    assert any("PORT=eighty" in line for line in server.log)


def test_a_taken_port_stops_the_start_and_names_its_variable(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with real_server(tmp_path, PORT=str(port)) as server:
            assert server.popen.wait(20) == 2
    assert any(f"PORT={port}: cannot listen there" in line for line in server.log)


def test_a_host_that_is_no_address_stops_the_start_and_names_its_variable(tmp_path: Path) -> None:
    with real_server(tmp_path, HOST="..") as server:
        assert server.popen.wait(20) == 2
    assert any("HOST=.." in line for line in server.log)


def server_with(folder: Path, model: str, **environment: str) -> AbstractContextManager[Process]:
    """A real process whose model is what the code in `model` makes of the fake one."""
    program = f"""
import sys, time
import server.serving
from models.fake import FakeClassifier
from server.settings import load_settings
{model}
raise SystemExit(server.serving.serve(load_settings()))
"""
    return real_server(folder, [sys.executable, "-c", program], **environment)


A_HANGING_RUN = """
def hang(_):
    print("in the pass", file=sys.stderr, flush=True)
    time.sleep(1000)
server.serving.open_default_classifier = lambda _: FakeClassifier(hang)
"""
A_HANGING_LOAD = "server.serving.open_default_classifier = lambda _: time.sleep(1000)"


def wait_for_line(server: Process, line: str) -> None:
    deadline = time.monotonic() + 20
    while not any(line in seen for seen in server.log):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_pass_that_hangs_does_not_hold_the_end_beyond_its_bound(tmp_path: Path) -> None:
    with server_with(tmp_path, A_HANGING_RUN, DRAIN_TIMEOUT_MS="300") as server, ThreadPoolExecutor(1) as pool:
        wait_until_ready(server.url)
        stuck = pool.submit(httpx2.post, f"{server.url}/classify", json={"text": "hello"}, timeout=30)
        wait_for_line(server, "in the pass")
        assert server.stop() == 1
        response = stuck.result()
    assert (response.status_code, response.json()["error"]["code"]) == (503, "draining")


A_SLOW_RUN = A_HANGING_RUN.replace("time.sleep(1000)", "time.sleep(1)")


def test_ctrl_c_finishes_what_was_accepted_without_the_delay_for_load_balancers(tmp_path: Path) -> None:
    with server_with(tmp_path, A_SLOW_RUN, DRAIN_DELAY_MS="60000") as server, ThreadPoolExecutor(1) as pool:
        wait_until_ready(server.url)
        accepted = pool.submit(httpx2.post, f"{server.url}/classify", json={"text": "hello"}, timeout=30)
        wait_for_line(server, "in the pass")
        server.popen.send_signal(signal.SIGINT)
        assert server.popen.wait(20) == 0
        assert accepted.result().status_code == 200
    assert not any("Traceback" in line for line in server.log)


def test_a_second_signal_skips_the_waiting_but_not_one_in_the_same_breath(tmp_path: Path) -> None:
    with server_with(tmp_path, A_HANGING_RUN, DRAIN_TIMEOUT_MS="60000") as server, ThreadPoolExecutor(1) as pool:
        wait_until_ready(server.url)
        stuck = pool.submit(httpx2.post, f"{server.url}/classify", json={"text": "hello"}, timeout=30)
        wait_for_line(server, "in the pass")
        for _ in range(2):
            server.popen.terminate()
            time.sleep(0.01)
        time.sleep(1.0)
        assert server.popen.poll() is None
        assert httpx2.get(f"{server.url}/ready").json()["error"]["code"] == "draining"
        assert server.stop() == 1
        response = stuck.result()
    assert (response.status_code, response.json()["error"]["code"]) == (503, "draining")


def test_a_second_signal_while_lingering_is_still_a_clean_end(tmp_path: Path) -> None:
    with server_with(tmp_path, A_HANGING_RUN, DRAIN_LINGER_MS="60000") as server:
        wait_until_ready(server.url)
        server.popen.terminate()
        time.sleep(1.0)
        assert server.stop() == 0


def test_a_load_that_hangs_does_not_hold_the_end(tmp_path: Path) -> None:
    with server_with(tmp_path, A_HANGING_LOAD, DRAIN_TIMEOUT_MS="60000") as server:
        assert httpx2.get(f"{server.url}/ready").json()["error"]["code"] == "not_ready"
        assert server.stop() == 0


BROKEN = """
def broken(self, *_): raise RuntimeError("cannot")
FakeClassifier.{method} = broken
server.serving.open_default_classifier = lambda _: FakeClassifier()
"""


@pytest.mark.parametrize("log_format", ["json", "console"])
@pytest.mark.parametrize("method", ["encode", "predict"])
def test_no_failure_brings_a_text_or_its_tokens_into_the_log(tmp_path: Path, method: str, log_format: str) -> None:
    with server_with(tmp_path, BROKEN.format(method=method), LOG_FORMAT=log_format) as server:
        wait_until_ready(server.url)
        response = httpx2.post(f"{server.url}/classify", json={"text": "the customer's own words"})
        assert response.status_code == 500
        assert "cannot" not in response.text
        assert server.stop() == 0
    log = "".join(server.log)
    assert "RuntimeError: cannot" in log
    assert "customer" not in log
    assert "ids=" not in log


def levels(server: Process) -> set[str]:
    """The levels of all lines of a server that has ended."""
    return {json.loads(line)["level"] for line in server.log}


def test_a_client_stuck_in_its_body_is_told_of_the_end(tmp_path: Path) -> None:
    with real_server(tmp_path, DRAIN_LINGER_MS="2000") as server:
        wait_until_ready(server.url)
        with socket.create_connection(("127.0.0.1", int(server.url.rpartition(":")[2])), timeout=20) as client:
            client.sendall(b"POST /classify HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
            time.sleep(0.2)
            assert server.stop() == 0
            answer = client.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b'"draining"' in answer
    assert levels(server) == {"info"}


def test_a_client_that_does_not_read_its_answers_is_no_error_at_the_end(tmp_path: Path) -> None:
    # No more requests than may wait on one connection, and more answers than fit into the buffers of both sides.
    request = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
    with real_server(tmp_path) as server:
        wait_until_ready(server.url)
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", int(server.url.rpartition(":")[2])))
            client.sendall(request * PIPELINED_REQUESTS)
            time.sleep(1.0)
            assert server.stop() == 0
    assert levels(server) == {"info"}


def test_a_large_body_is_answered_before_the_connection_ends(tmp_path: Path) -> None:
    with real_server(tmp_path) as server:
        wait_until_ready(server.url)
        response = httpx2.post(f"{server.url}/classify", content=b"a" * (4 << 20))
        assert (response.status_code, response.json()["error"]["code"]) == (413, "body_too_large")
        assert server.stop() == 0


def test_serving_imports_neither_torch_nor_transformers_nor_the_build(tmp_path: Path) -> None:
    code = """
import sys
for name in ("torch", "transformers", "onnx", "locust", "models.making"):
    sys.modules[name] = None  # importing it raises ImportError
from server.settings import load_settings
from server.serving import open_default_classifier
import commands.cli
classifier = open_default_classifier(load_settings())
print(classifier.predict([classifier.encode("payment failed")])[0].label)
"""
    command, environment = [sys.executable, "-c", code], clean_environment()
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "billing\n"


def test_the_interpreter_neither_looks_for_garbage_nor_makes_passes_wait_for_it(tmp_path: Path) -> None:
    model = """
import gc
def tell(_): print("interpreter:", gc.get_freeze_count() > 10_000, gc.get_threshold(), sys.getswitchinterval(), file=sys.stderr)
server.serving.open_default_classifier = lambda _: FakeClassifier(tell)
"""
    with server_with(tmp_path, model) as server:
        wait_until_ready(server.url)
        assert httpx2.post(f"{server.url}/classify", json={"text": "hello"}).status_code == 200
        assert server.stop() == 0
    assert "interpreter: True (50000, 10, 10) 0.0005\n" in server.log


@pytest.mark.parametrize("log_format", ["console", "auto"])
def test_both_log_formats_start(tmp_path: Path, log_format: str) -> None:
    with real_server(tmp_path, LOG_FORMAT=log_format) as server:
        wait_until_ready(server.url)
        assert server.stop() == 0
