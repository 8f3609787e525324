"""Makes a pool of solutions that another program sampled (TRL, verl, Open-R1, or anything that writes token ids).

    python launch/import_pool.py --rollouts samples.jsonl --model=Qwen/Qwen3-0.6B --pool=pools/mine
    python launch/train.py --pool=pools/mine --model=Qwen/Qwen3-0.6B

A column that is called otherwise is named by a flag (`--answer_column=gold`). docs/pools.md says what the files need.
"""

from o1p_jax.runtime.entry import main


def command(argv: list[str]) -> None:
    from o1p_jax.config.imports import ImportConfig
    from o1p_jax.stages import cli

    cfg = cli.parse(ImportConfig, argv)
    from o1p_jax.stages.import_pool import import_pool

    print(f"pool {import_pool(cfg).path}")


if __name__ == "__main__":
    main(command)
