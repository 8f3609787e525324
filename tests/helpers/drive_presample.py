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

    def __init__(self, how, slots: int = 5, delay_s: float = 0.0):
        self.how, self.slots, self.delay_s = how, slots, delay_s
        self.tokens, self.waiting = 0, []

    @property
    def room(self):
        return self.slots - len(self.waiting)

    def add(self, key, request):
        self.waiting.append((key, request))

    def step(self):
        """Ends one request: not always the one that came first."""
        key, request = self.waiting.pop(self.tokens % len(self.waiting))
        rng = random.Random(request.seed)
        length = rng.randint(1, self.how.max_tokens)
        self.tokens += length
        time.sleep(self.delay_s)
        ids = tuple(rng.randrange(3, 100) for _ in range(length))
        logprobs = tuple(-0.5 for _ in ids) if request.logprobs else None
        return [(key, Completion(ids, "length" if length == self.how.max_tokens else "stop", logprobs))]

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
    module.presample(job, make_sampler=lambda config, folder, how, **_: FakeSampler(how, delay_s=0.005))
