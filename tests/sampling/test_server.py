"""The server sampler against a small local server that fails, refuses and answers."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from fake_server import serving

from o1p_jax.config.tree import SamplingConfig
from o1p_jax.data.records import Completion, Request
from o1p_jax.runtime.errors import BadInput, SamplerGone
from o1p_jax.sampling import server
from o1p_jax.sampling.base import SamplingParams, sample
from o1p_jax.sampling.scores import Scores
from o1p_jax.sampling.server import ServerSampler

HOW = SamplingParams(temperature=0.5, top_p=0.8, top_k=7, max_tokens=9, stop_ids=(2, 3))


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch):
    monkeypatch.setattr(server, "_LONGEST_WAIT_S", 0.01)


OWN, OTHER = Path("own"), Path("other")


def score(folder, dtype, answers):
    """The model in OWN reverses its prompts, with log-probability -0.1 for each token; OTHER's tokens have -0.2."""
    found = []
    for answer in answers:
        right = np.array(answer.token_ids) == np.array(answer.prompt_ids[::-1])[: len(answer.token_ids)]
        found.append(Scores(np.full(len(right), -0.1 if folder == OWN else -0.2), np.where(right, 0.2, 3.0)))
    return found


REQUESTS = [Request((i, i + 1, i + 2), seed=i) for i in range(20)]


def sampler(*urls: str, others=(), probes=REQUESTS[:4], **fields) -> ServerSampler:
    config = SamplingConfig(sampler="server", servers=urls, slots=4, timeout_s=5, **fields)
    return ServerSampler(config, OWN, HOW, "float32", [probe.prompt_ids for probe in probes], others, score)


ANSWERS = [Completion((i + 2, i + 1, i), "stop") for i in range(20)]


def test_answers_in_order_from_several_servers():
    with serving() as a, serving() as b:
        made = sampler(a.url, b.url)
        assert sample(made, REQUESTS) == ANSWERS and made.tokens == 60
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


def test_log_probabilities_come_from_servers_that_tell_them():
    asked = [request._replace(logprobs=i == 0) for i, request in enumerate(REQUESTS)]
    with serving(answer=lambda prompt: (prompt[::-1], [-0.1] * len(prompt))) as a, serving() as silent:
        assert sample(sampler(a.url), asked) == [ANSWERS[0]._replace(logprobs=(-0.1,) * 3), *ANSWERS[1:]]
        assert len(a.asked) == 19  # without log-probabilities
        assert sample(sampler(a.url, silent.url), asked) == ANSWERS
        assert len(a.asked) + len(silent.asked) == 19 + 20


def test_failures_are_retried():
    with serving() as a:
        made = sampler(a.url)
        a.failures = 4
        assert sample(made, REQUESTS) == ANSWERS
        assert len(a.asked) == 24


def test_a_dead_server_is_passed_over():
    with serving() as a, serving() as dead:
        made = sampler(a.url, dead.url)
        dead.shutdown()
        dead.server_close()
        assert sample(made, REQUESTS) == ANSWERS


def test_all_servers_gone():
    with pytest.raises(SamplerGone, match=r"127\.0\.0\.1:9/v1.*6 attempts.*start the server") as e:
        sampler("http://127.0.0.1:9/v1")
    assert e.value.exit_code == 69


def test_gone_on_the_way():
    with serving() as a:
        made = sampler(a.url)
        a.failures = 10**6
        with pytest.raises(SamplerGone, match="6 attempts"):
            sample(made, REQUESTS)


def test_refused_request_is_not_retried():
    with serving(status=400) as a:
        with pytest.raises(BadInput, match=r"refused the request.*prompt too long"):
            sampler(a.url)
        assert len(a.all_asked) == 2  # with log-probabilities and without


def test_answer_without_token_ids():
    with serving(token_ids=False) as a, pytest.raises(BadInput, match="gives no token ids"):
        sampler(a.url)


def test_several_models_on_a_server():
    with serving(models=("one", "two")) as a:
        assert sampler(a.url, served_model="two").model == "two"
        with pytest.raises(BadInput, match=r"sampling.served_model=three: .* serves one, two"):
            sampler(a.url, served_model="three")
        with pytest.raises(BadInput, match=r"sampling.served_model: .* serves one, two; name one"):
            sampler(a.url)


def test_servers_of_different_names_are_refused_and_every_one_is_asked():
    message = r"/v1/ serves one, http.*/v1/ serves two; all must serve one model"
    with serving(models=("one",)) as a, serving(models=("two",)) as b, pytest.raises(BadInput, match=message):
        sampler(a.url, b.url)
    with serving() as a, serving(models=()) as b, pytest.raises(BadInput, match=rf"{b.url}/ serves no model"):
        sampler(a.url, b.url)


def test_a_server_of_another_model_is_refused_before_anything_is_sampled():
    with serving() as a, serving(answer=lambda prompt: (prompt, None)) as b:
        with pytest.raises(BadInput, match=rf"{b.url}/ does not serve the model in own: 8 of the 12 tokens"):
            sampler(a.url, b.url)
        assert not a.asked and not b.asked
        greedy = b.all_asked[0]
        assert (greedy["temperature"], greedy["max_tokens"], greedy["logprobs"]) == (0.0, 9, 1)


def test_rounding_does_not_make_another_model():
    """One token of a hundred that other experts chose, and log-probabilities that are off by a little."""

    def almost(prompt):
        return [*prompt[::-1][:-1], 1] if prompt[0] == 7 else prompt[::-1], [-0.14] * len(prompt)

    long = [Request(tuple(range(7 + i, 57 + i)), seed=i) for i in range(4)]
    with serving(answer=almost) as a:
        sampler(a.url, others=[OTHER], probes=long)
        assert len(a.all_asked) == 4


def telling(logprob):
    return lambda prompt: (prompt[::-1], [logprob] * len(prompt))


def test_servers_without_log_probabilities_are_said_to_have_none(capsys):
    with serving() as a:
        assert sample(sampler(a.url, others=[OTHER]), REQUESTS) == ANSWERS
    assert "the servers tell no log-probabilities" in capsys.readouterr().err


def test_a_server_of_the_model_before_training_is_told_by_its_log_probabilities():
    message = r"serves other rather than own: .* by 0.0200 and 0.0800 nats"
    with serving(answer=telling(-0.18)) as a, pytest.raises(BadInput, match=message):
        sampler(a.url, others=[OTHER])
    with serving(answer=telling(-9.0)) as a:  # logits, or what else a server may tell in their place
        assert sample(sampler(a.url, others=[OTHER]), REQUESTS) == ANSWERS


@pytest.mark.parametrize("proxy", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_a_server_on_this_host_is_not_asked_through_a_proxy(proxy, monkeypatch):
    monkeypatch.setenv(proxy, "http://127.0.0.1:9")
    with serving() as a:
        for url in (a.url, a.url.replace("127.0.0.1", "localhost")):
            assert sample(sampler(url), REQUESTS[:2]) == ANSWERS[:2]


def test_a_proxy_in_the_way_is_named(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    with pytest.raises(SamplerGone, match=r"asked through the proxy http://127.0.0.1:9, which NO_PROXY=HOST turns off"):
        sampler("http://10.255.255.1:8000/v1")


STOPPED = """
from contextlib import closing
from o1p_jax.config.tree import SamplingConfig
from o1p_jax.data.records import Request
from o1p_jax.sampling.base import SamplingParams, sample
from o1p_jax.sampling.server import ServerSampler
from o1p_jax.runtime.entry import main

def command(argv):
    config = SamplingConfig(sampler="server", servers=(argv[0],), slots=4)
    with closing(ServerSampler(config, None, SamplingParams(max_tokens=9, stop_ids=()), "float32")) as sampler:
        sample(sampler, [Request((1,), i) for i in range(9)])

main(command)
"""


def test_a_stop_does_not_wait_for_answers(tmp_path):
    """The server's answers take minutes."""
    script = tmp_path / "script.py"
    script.write_text(STOPPED)
    with serving(delay_s=600) as a:
        child = subprocess.Popen(
            [sys.executable, script, a.url],
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        )
        while not a.waiting:
            assert child.poll() is None
            time.sleep(0.02)
        child.send_signal(signal.SIGTERM)
        _, said = child.communicate(timeout=60)
    assert child.returncode == 75 and said == "error: stopped by SIGTERM; run the same command to go on\n"
