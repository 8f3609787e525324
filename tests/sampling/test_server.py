"""The server sampler against a small local server that fails, refuses and answers."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from o1p_jax.config.tree import SamplingConfig
from o1p_jax.data.records import Completion, Request
from o1p_jax.runtime.errors import BadInput, SamplerGone
from o1p_jax.sampling import server
from o1p_jax.sampling.base import SamplingParams
from o1p_jax.sampling.server import ServerSampler

HOW = SamplingParams(temperature=0.5, top_p=0.8, top_k=7, max_tokens=9, stop_ids=(2, 3))


class Fake(ThreadingHTTPServer):
    """Answers with the prompt reversed; the first `failures` completions fail with 503."""

    daemon_threads = True

    def __init__(self, failures: int = 0, models=("served",), token_ids: bool = True, status: int = 200):
        super().__init__(("127.0.0.1", 0), Handler)
        self.failures, self.models, self.token_ids, self.status = failures, models, token_ids, status
        self.asked: list[dict] = []
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Fake

    def do_GET(self):
        self.answer(200, {"object": "list", "data": [{"id": m, "object": "model"} for m in self.server.models]})

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.asked.append(asked)
            self.server.failures -= 1
            fails = self.server.failures >= 0
        if fails or self.server.status != 200:
            return self.answer(503 if fails else self.server.status, {"error": {"message": "prompt too long"}})
        choice = {"index": 0, "text": "x", "finish_reason": "stop", "logprobs": None}
        if self.server.token_ids:
            choice["token_ids"] = asked["prompt"][::-1]
        self.answer(200, {"id": "1", "object": "text_completion", "created": 0, "model": "served", "choices": [choice]})

    def answer(self, status: int, body: dict):
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass


@contextmanager
def serving(**how):
    fake = Fake(**how)
    thread = threading.Thread(target=fake.serve_forever)
    thread.start()
    try:
        yield fake
    finally:
        fake.shutdown()
        fake.server_close()
        thread.join()


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(server, "_LONGEST_WAIT_S", 0.01)


def sampler(*urls: str, model: str = "anything") -> ServerSampler:
    return ServerSampler(SamplingConfig(sampler="server", servers=urls, slots=4, timeout_s=5), model)


REQUESTS = [Request((i, i + 1, i + 2), seed=i) for i in range(20)]
ANSWERS = [Completion((i + 2, i + 1, i), "stop") for i in range(20)]


def test_answers_in_order_from_several_servers():
    with serving() as a, serving() as b:
        done = []
        assert sampler(a.url, b.url).sample(REQUESTS, HOW, done.append) == ANSWERS
        assert sum(done) == 20
        assert len(a.asked) >= 5 and len(b.asked) >= 5
        sent = a.asked[0]
        assert sent["seed"] == sent["prompt"][0]
        assert {
            k: sent[k]
            for k in (
                "temperature",
                "top_p",
                "top_k",
                "max_tokens",
                "stop_token_ids",
                "min_p",
                "repetition_penalty",
                "return_token_ids",
                "model",
            )
        } == {
            "temperature": 0.5,
            "top_p": 0.8,
            "top_k": 7,
            "max_tokens": 9,
            "stop_token_ids": [2, 3],
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "return_token_ids": True,
            "model": "served",
        }


def test_failures_are_retried():
    with serving(failures=4) as a:
        assert sampler(a.url).sample(REQUESTS, HOW, lambda n: None) == ANSWERS
        assert len(a.asked) == 24


def test_a_dead_server_is_passed_over():
    with serving() as a, serving() as dead:
        made = sampler(a.url, dead.url)
        dead.shutdown()
        dead.server_close()
        assert made.sample(REQUESTS, HOW, lambda n: None) == ANSWERS


def test_all_servers_gone():
    with pytest.raises(SamplerGone, match=r"127\.0\.0\.1:9/v1.*6 attempts.*start the server") as e:
        sampler("http://127.0.0.1:9/v1")
    assert e.value.exit_code == 69


def test_gone_on_the_way():
    with serving(failures=10**6) as a, pytest.raises(SamplerGone, match="6 attempts"):
        sampler(a.url).sample(REQUESTS, HOW, lambda n: None)


def test_refused_request_is_not_retried():
    with serving(status=400) as a:
        with pytest.raises(BadInput, match=r"refused the request.*prompt too long"):
            sampler(a.url).sample(REQUESTS[:1], HOW, lambda n: None)
        assert len(a.asked) == 1


def test_answer_without_token_ids():
    with serving(token_ids=False) as a, pytest.raises(BadInput, match="gives no token ids"):
        sampler(a.url).sample(REQUESTS[:1], HOW, lambda n: None)


def test_several_models_on_a_server():
    with serving(models=("one", "two")) as a:
        assert sampler(a.url, model="two").model == "two"
        with pytest.raises(BadInput, match="one, two"):
            sampler(a.url, model="three")
