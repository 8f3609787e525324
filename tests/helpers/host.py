"""What the host-side tests share: a tiny model folder without weights worth the name, and problem files."""

import json
from collections.abc import Sequence
from pathlib import Path

from drive_train import MODEL

from o1p_jax.config.tree import ProblemConfig, RunConfig, SamplingConfig
from o1p_jax.models.families import read_config
from o1p_jax.models.source import SourceModel

CHAT_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def model_folder(
    path: Path, *, chat_template: str | None = CHAT_TEMPLATE, vocab_size: int = 300, special: Sequence[str] = ()
) -> Path:
    """A byte-level tokenizer with BOS and EOS, a config.json, and a file that stands for weights."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "<s>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={w: i for i, w in enumerate(words)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    fast.add_tokens([AddedToken(token, special=True) for token in special], special_tokens=True)
    fast.chat_template = chat_template
    fast.save_pretrained(path)
    (path / "config.json").write_text(json.dumps({"vocab_size": vocab_size}))
    (path / "model.safetensors").write_bytes(b"weights")
    return path


def problem_file(path: Path, n: int) -> Path:
    rows = [{"problem": f"What is {i} plus {i}?", "answer": str(2 * i), "level": i % 3} for i in range(n)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run_config(problems: Path, *, samples: int = 4, shard: int = 4, max_tokens: int = 12, **fields) -> RunConfig:
    sampling = SamplingConfig(samples_per_problem=samples, problems_per_shard=shard, max_tokens=max_tokens)
    return RunConfig(problems=ProblemConfig(train=str(problems), test=str(problems)), sampling=sampling, **fields)


def source(cfg: RunConfig, digest: str = "weights") -> SourceModel:
    """A model that is only sampled from, by a sampler that does not look at its weights."""
    decoder = read_config(MODEL)
    return SourceModel(name=cfg.model, folder=Path(cfg.model), decoder=decoder, commit=None, digest=digest, state="")
