"""The configuration of an import of samples that were made elsewhere: files, format, and the model that made them."""

from dataclasses import dataclass
from typing import ClassVar, Literal

from o1p_jax.runtime.fields import check

Format = Literal["auto", "jsonl", "trl", "verl", "open_r1"]


@dataclass(frozen=True, kw_only=True)
class ImportConfig:
    """What is imported; each field is a flag. A column that is left out has the name that the format gives it."""

    FLAG: ClassVar[str] = ""

    rollouts: tuple[str, ...]
    """JSONL or Parquet files, in the order in which a problem's samples are numbered."""
    pool: str
    """The folder of the new pool."""
    model: str
    """The model that made the samples: Hugging Face folder, hub name, or `embedded`."""
    revision: str | None = None
    """Commit, tag or branch of the model on the hub."""
    format: Format = "auto"
    """The program that wrote the files; auto: told by the columns of the first row."""
    steps: tuple[int, ...] = ()
    """Training steps whose rows are taken, where a trainer wrote the files; left out: there must be one step only."""
    problems_per_shard: int = 64
    """Number of problems in one file of the pool."""
    prompt_ids_column: str | None = None
    """Column of the prompt's token ids, as the model saw them."""
    completion_ids_column: str | None = None
    """Column of the solution's token ids, as they were sampled."""
    completion_column: str | None = None
    """Column of the solution's text, which is compared with the token ids where there is one."""
    problem_column: str | None = None
    """Column of the problem's text; without it, problems are told apart by their prompts."""
    answer_column: str | None = None
    """Column of the gold answer. Where its text holds '####' (GSM8K), what stands behind the last '####' counts."""
    finish_reason_column: str | None = None
    """Column that says how the solution ended: stop or length."""
    step_column: str | None = None
    """Column of the trainer's step, by which `steps` chooses."""
    mask_column: str | None = None
    """Column with 1 for each token of the solution that the model sampled, 0 for others (a tool's output)."""
    level_column: str | None = None
    """Column of the problem's difficulty, for people."""

    def __post_init__(self) -> None:
        check(self, "rollouts", bool(self.rollouts), "name at least one file")
        check(self, "problems_per_shard", self.problems_per_shard >= 1, "must be at least 1")

    @property
    def columns(self) -> dict[str, str]:
        """What a column holds -> the column's name, for the columns that the user gave a name."""
        roles = {name.removesuffix("_column"): value for name, value in vars(self).items() if name.endswith("_column")}
        return {role: name for role, name in roles.items() if name is not None}
