import dataclasses

import numpy as np
import pytest
from drive_train import tiny_samples

from o1p_jax.runtime.errors import CorruptData
from o1p_jax.training import reference
from o1p_jax.training.reference import References
from o1p_jax.training.samples import TrainingSet
from o1p_jax.training.shapes import Packer, Shape

PACKER = Packer(shapes=(Shape(4, 48), Shape(4, 16)), devices=4, cost=0)
HERE = [range(4), range(4)]
SAMPLES = tiny_samples(20)


class Model:
    """Gives each target its own id as log-probability, and counts its calls."""

    def __init__(self):
        self.calls, self.shapes = 0, set()

    def __call__(self, batch, shape):
        self.calls += 1
        self.shapes.add(tuple(x.shape for x in batch))
        assert batch.ids_RL.shape == (1, *shape)
        return batch.targets_RL[0].astype(np.float32)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
    monkeypatch.setattr(reference, "SAMPLES_PER_PART", 8)


def compute(folder, made_by="m", samples=SAMPLES) -> tuple[dict[int, np.ndarray], int]:
    model, kept = Model(), TrainingSet.of(samples)
    references = References(kept, PACKER, HERE, range(len(samples)))
    assert references.wanted == set(range(len(samples)))
    return references.compute(kept.read(references.wanted), folder, {"model": made_by}, model), model.calls


def assert_right(values, samples=SAMPLES):
    assert {i: v.tolist() for i, v in values.items()} == {
        i: list(map(float, s.completion_ids)) for i, s in enumerate(samples)
    }


def test_each_sample_gets_the_values_of_its_completion_tokens_once(tmp_path):
    values, calls = compute(tmp_path)
    assert_right(values)
    assert calls >= 3 and len(list(tmp_path.glob("part-*"))) == 3
    again, calls = compute(tmp_path)
    assert_right(again)
    assert calls == 0


def test_all_parts_have_the_same_shapes_so_that_few_programs_serve(tmp_path):
    """Parts of few long and of many short samples, whose rows hold 1 to 12 of them."""
    samples = [
        dataclasses.replace(sample, completion_ids=(1,) * (3 if i < 12 else 30)) for i, sample in enumerate(SAMPLES)
    ]
    model, kept = Model(), TrainingSet.of(samples)
    references = References(kept, PACKER, HERE, range(len(samples)))
    references.compute(kept.read(references.wanted), tmp_path, {}, model)
    assert model.calls >= 3 and len(model.shapes) == 2


def test_a_missing_or_damaged_part_is_computed_again(tmp_path, capsys):
    compute(tmp_path)
    first, path, _ = sorted(tmp_path.glob("part-*.parquet"))
    first.unlink()
    whole = path.read_bytes()
    for position in range(0, len(whole), max(1, len(whole) // 60)):
        damaged = bytearray(whole)
        damaged[position] ^= 4
        path.write_bytes(damaged)
        with pytest.raises(CorruptData, match="damaged"):  # whatever the byte is for: also one that no value depends on
            reference.read_part(path)
        assert_right(compute(tmp_path)[0])
    assert f"{path.name}: damaged" in capsys.readouterr().err


def test_only_trainings_that_differ_in_weights_share_the_parts(tmp_path):
    compute(tmp_path)
    weighed = [dataclasses.replace(sample, weight=-sample.weight) for sample in SAMPLES]
    values, calls = compute(tmp_path, samples=weighed)
    assert_right(values)
    assert calls == 0
    assert compute(tmp_path, "other")[1] > 0
    values, calls = compute(tmp_path, "other", SAMPLES[::-1])
    assert_right(values, SAMPLES[::-1])
    assert calls > 0


def test_a_process_needs_the_samples_of_its_rows_alone():
    kept = TrainingSet.of(SAMPLES)
    shares = [References(kept, PACKER, [rows, rows], range(20)).wanted for rows in ([0, 1], [2, 3])]
    assert shares[0] | shares[1] == set(range(20)) and not shares[0] & shares[1] and all(shares)
