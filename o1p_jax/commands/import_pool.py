"""Makes a pool of solutions that another program sampled (TRL, verl, Open-R1, or anything that writes token ids).

    o1p import-pool --rollouts samples.jsonl --model=Qwen/Qwen3-0.6B --pool=pools/mine
    o1p train --pool=pools/mine --model=Qwen/Qwen3-0.6B

A column that is called otherwise is named by a flag (--answer_column=gold). docs/pools.md says what the files need.
"""

from dataclasses import dataclass

from o1p_jax.config.imports import ImportConfig
from o1p_jax.stages import cli


@dataclass(frozen=True, kw_only=True)
class Arguments(cli.Flags, ImportConfig):
    """The flags are the fields of the import's configuration."""


def command(argv: list[str]) -> None:
    args = cli.parse(Arguments, argv, __doc__)
    from o1p_jax.stages.import_pool import import_pool

    print(f"pool {import_pool(args).path}")
