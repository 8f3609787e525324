"""A small local server that speaks OpenAI's completions protocol, and fails, refuses or answers as a test wants it."""

import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Fake(ThreadingHTTPServer):
    """Answers with `answer(prompt)`, token ids and their log-probabilities or None; the prompt reversed if left out.

    The first `failures` completions fail with 503; an answer takes `delay_s`.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, failures=0, models=("served",), token_ids=True, status=200, answer=None, delay_s=0.0):
        super().__init__(("127.0.0.1", 0), Handler)
        self.failures, self.models, self.token_ids, self.status = failures, models, token_ids, status
        self.reply, self.delay_s = answer or (lambda prompt: (prompt[::-1], None)), delay_s
        self.all_asked: list[dict] = []
        self.waiting = 0
        self.lock = threading.Lock()

    @property
    def asked(self) -> list[dict]:
        """The requests for samples, without those that ask what is served."""
        return [asked for asked in self.all_asked if "logprobs" not in asked]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Fake

    def do_GET(self):
        self.answer(200, {"object": "list", "data": [{"id": m, "object": "model"} for m in self.server.models]})

    def do_POST(self):
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.waiting += 1
        time.sleep(self.server.delay_s)
        with self.server.lock:
            self.server.all_asked.append(asked)
            self.server.failures -= 1
            fails = self.server.failures >= 0
        if fails or self.server.status != 200:
            return self.answer(503 if fails else self.server.status, {"error": {"message": "prompt too long"}})
        choice = {"index": 0, "text": "x", "finish_reason": "stop", "logprobs": None}
        if self.server.token_ids:
            choice["token_ids"], told = self.server.reply(asked["prompt"])
            choice["logprobs"] = told and {"token_logprobs": told}
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
