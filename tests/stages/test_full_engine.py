"""An engine stays full while shards end and begin: a made-up sampler, whose time is the number of its steps."""

import random
from collections import deque
from dataclasses import asdict
from pathlib import Path

import pytest
from drive_presample import FakePrompter

from o1p_jax.config.tree import SamplingConfig
from o1p_jax.data.pool import Pool
from o1p_jax.data.records import Completion, Problem
from o1p_jax.sampling import SamplingParams
from o1p_jax.stages import presample as module
from o1p_jax.stages.presample import SampleJob, presample

SLOTS, SHARDS, PER_SHARD, CAP = 256, 40, 1024, 16_384


def length(key: int) -> int:
    """The length of a sample: lognormal, with a mean of about 4,000, and cut off."""
    return max(1, min(CAP, round(random.Random(key).lognormvariate(7.885, 1.0))))


class Ticks:
    """A sampler that draws one token a tick for each of `SLOTS` requests, and jumps to the tick where the next ends."""

    name, version, seeds_each = "ticks", "1", True

    def __init__(self):
        self.ticks = self.tokens = 0
        self.until: dict[int, int] = {}
        self.most_shards = 0

    @property
    def room(self) -> int:
        return SLOTS - len(self.until)

    def add(self, key, request):
        self.until[key] = self.ticks + length(key)
        self.most_shards = max(self.most_shards, len({key // PER_SHARD for key in self.until}))

    def step(self):
        self.tokens += 1
        self.ticks = min(self.until.values())
        ended = [key for key, until in self.until.items() if until == self.ticks]
        for key in ended:
            del self.until[key]
        return [(key, Completion((3,), "stop")) for key in ended]

    def close(self):
        pass


def empty_pool(folder: Path) -> Pool:
    """A pool of `SHARDS` shards, each of 64 problems with 16 samples."""
    names = [f"{i:05}" for i in range(SHARDS * PER_SHARD // 16)]
    problems = [Problem(problem_id=name, source="", split="", level="", problem="", answer="") for name in names]
    draw = {"samples_per_problem": 16, "seed": 0, **asdict(SamplingParams(max_tokens=CAP, stop_ids=(3,)))}
    prompts = {name: [1] for name in names}
    return Pool.create(
        folder / "pool", identity={}, facts={"draw": draw}, problems=problems, prompts=prompts, problems_per_shard=64
    )


def endless_queue() -> int:
    """The ticks that all samples take in one queue."""
    waiting, engine = deque(range(SHARDS * PER_SHARD)), Ticks()
    while waiting or engine.until:
        while waiting and engine.room:
            engine.add(waiting.popleft(), None)
        engine.step()
    return engine.ticks


@pytest.mark.parametrize(("most", "ratio"), [(8, 1.05), (1, None)])
def test_shards_take_the_time_of_one_endless_queue(tmp_path, monkeypatch, most, ratio):
    monkeypatch.setattr(module, "Prompter", FakePrompter)
    pool = empty_pool(tmp_path)
    engine = Ticks()
    sampling = SamplingConfig(shards_in_flight=most)
    job = SampleJob(title="train", pools=(str(pool.path),), folder="", sampling=sampling, mesh="1x1", dtype="float32")
    presample(job, make_sampler=lambda *_, **__: engine)
    assert pool.complete and engine.most_shards <= most
    if ratio is None:  # drained between shards: the test would show it
        assert engine.ticks > 1.5 * endless_queue()
    else:
        assert engine.ticks <= ratio * endless_queue()
