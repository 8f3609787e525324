"""Presamples with a cheap deterministic sampler: `python drive_presample.py JOB.json`. Killed by test_presample.py."""

import json
import random
import sys
import time
from pathlib import Path

from o1p_jax.config.text import from_dict
from o1p_jax.data.records import Completion
from o1p_jax.stages import presample as module


class FakeSampler:
    """Tokens drawn from the request's seed; `delay_s` a request, so that a kill finds it at work."""

    name, version, seeds_each = "fake", "1", True

    def __init__(self, vocab_size: int = 100, delay_s: float = 0.0):
        self.vocab_size, self.delay_s = vocab_size, delay_s

    def sample(self, requests, params, on_done):
        done = []
        for request in requests:
            rng = random.Random(request.seed)
            length = rng.randint(1, params.max_tokens)
            ids = tuple(rng.randrange(3, self.vocab_size) for _ in range(length))
            done.append(Completion(ids, "length" if length == params.max_tokens else "stop"))
            time.sleep(self.delay_s)
            on_done(1)
        return done

    def close(self):
        pass


class FakePrompter:
    """Bytes for text: a killed process starts in a second, without transformers."""

    def __init__(self, *_):
        pass

    def decode(self, ids):
        return bytes(ids).decode()


if __name__ == "__main__":
    module.Prompter = FakePrompter
    job = from_dict(module.SampleJob, json.loads(Path(sys.argv[1]).read_text()))
    module.presample(job, make_sampler=lambda *_, **__: FakeSampler(delay_s=0.005))
