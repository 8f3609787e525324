"""The flags of a whole job on the embedded model that takes seconds: one set, so that tests share what it compiles.

One round; the embedded default has two.
"""

SMALL = ["--mesh=2x1", "--rounds=1", "--problems.limit_train=8", "--problems.limit_test=4",
         "--sampling.samples_per_problem=4", "--method.m=4", "--sampling.slots=32", "--sampling.problems_per_shard=2",
         "--sampling.max_tokens=128", "--evaluation.max_tokens=128", "--evaluation.samples_per_problem=2",
         "--batch.sequences=4", "--batch.row_length=256", "--checkpoint.every=2"]  # fmt: skip
"""8 problems with 4 samples each, 4 test problems with 2, 8 steps; on two devices, since eight take twice the time."""
