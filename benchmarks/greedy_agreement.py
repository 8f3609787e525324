"""Do transformers, vLLM and the embedded sampler give the same greedy tokens from one folder, in float32?

.venv-vllm/bin/python benchmarks/greedy_agreement.py --model=runs/smollm2_135m/model --problems=gsm8k/test.jsonl
"""

from dataclasses import dataclass

from o1p_jax.runtime.entry import main
from o1p_jax.stages import cli


@dataclass(frozen=True, kw_only=True)
class Arguments:
    model: str
    """Hugging Face folder."""
    problems: str
    prompts: int = 8
    tokens: int = 64


def command(argv: list[str]) -> None:
    args = cli.parse(Arguments, argv)
    from o1p_jax.config.tree import ProblemConfig, SamplingConfig, VllmConfig
    from o1p_jax.data.problems import load_problems
    from o1p_jax.data.prompts import Prompter
    from o1p_jax.data.records import Request
    from o1p_jax.models.hf.hub import resolve_model
    from o1p_jax.sampling import SamplingParams, make_sampler, sample

    problems, vllm = ProblemConfig(), VllmConfig(dtype="float32", kv_cache_gib=1.0)
    folder = resolve_model(args.model)
    prompter = Prompter(folder, problems)
    prompts = [prompter.prompt_ids(p) for p in load_problems(args.problems, problems, args.prompts)]
    longest = max(map(len, prompts)) + args.tokens
    how = SamplingParams(temperature=0.0, max_tokens=args.tokens, stop_ids=prompter.eos_ids)
    expected = _transformers(str(folder), prompts, args.tokens, prompter.eos_ids)
    for kind in ("vllm", "jax"):
        config = SamplingConfig(sampler=kind, slots=args.prompts, vllm=vllm)
        sampler = make_sampler(config, folder, how, mesh="1x1", dtype="float32", max_length=longest)
        got = [c.token_ids for c in sample(sampler, [Request(p, 0) for p in prompts])]
        sampler.close()
        same = sum(a == b for a, b in zip(got, expected, strict=True))
        tokens = sum(_common(a, b) for a, b in zip(got, expected, strict=True))
        print(f"{kind}: {same} of {len(prompts)} completions equal transformers', "
              f"{tokens} of {sum(map(len, expected))} tokens before the first difference")  # fmt: skip


def _common(a: tuple[int, ...], b: tuple[int, ...]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _transformers(folder: str, prompts: list[tuple[int, ...]], tokens: int, eos: tuple[int, ...]) -> list[tuple]:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    outs = []
    for prompt in prompts:
        ids = torch.tensor([prompt])
        out = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=tokens,
                             eos_token_id=list(eos), pad_token_id=eos[0])  # fmt: skip
        outs.append(tuple(out[0, len(prompt) :].tolist()))
    return outs


if __name__ == "__main__":
    main(command)
