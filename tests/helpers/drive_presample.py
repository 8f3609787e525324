"""Presamples with a cheap deterministic sampler: `python drive_presample.py JOB.json`. Killed by test_presample.py."""

import json
import random
import sys
import time
from pathlib import Path

from o1p_jax.config.text import from_dict
from o1p_jax.config.tree import RunConfig
from o1p_jax.data.records import Completion
from o1p_jax.stages import presample as module
from o1p_jax.stages.presample import RolloutJob


class FakeSampler:
    """Tokens drawn from the request's seed; `delay_s` a request, so that a kill finds it at work."""

    name, version = "fake", "1"

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
    """Bytes for tokens: a killed process starts in a second, without transformers."""

    template_hash, eos_ids = "fake", (0,)

    def __init__(self, *_):
        pass

    def prompt_ids(self, problem):
        return tuple(problem.problem.encode())

    def decode(self, ids):
        return bytes(ids).decode()


if __name__ == "__main__":
    module.Prompter = FakePrompter
    values = json.loads(Path(sys.argv[1]).read_text())
    job = RolloutJob(**values | {"config": from_dict(RunConfig, values["config"])})
    module.presample(job, make_sampler=lambda *_: FakeSampler(delay_s=0.005))
