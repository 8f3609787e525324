"""How true is the forecast? Step times that others have published, beside those that planning/step_time.py forecasts.

    python benchmarks/forecast.py            # the table of docs/pods.md
    python benchmarks/forecast.py --fit      # the shares of config/chips.py

The runs stand in published.json, each with its source: "fit" are those that the shares in config/chips.py were fitted
to, "held out" others of the same kind (JAX and XLA), and "other" those of other software or other cards. `rows` are a
device's rows of a microbatch, and `recomputed` is what the backward pass computes again. A run reports "seconds" a
step, "tokens" a second and chip, or "tflops" of a chip, counted as MaxText did: attention without causality. MPT's
feed-forward of two matrices stands there as one of three with as many parameters.
"""

import json
import math
import sys
from pathlib import Path
from typing import Any, NamedTuple

from o1p_jax.config.chips import CHIPS, Topology
from o1p_jax.config.mesh import parse_mesh
from o1p_jax.config.tree import ComputeConfig
from o1p_jax.models.config import DecoderConfig
from o1p_jax.planning.estimate import formula_time, kernel_of
from o1p_jax.planning.roofline import step_flops
from o1p_jax.planning.step_time import StepTime

_TWENTIETHS = [n / 20 for n in range(2, 20)]


class Row(NamedTuple):
    """A published run and its forecast."""

    run: dict[str, Any]
    seconds: float
    """Seconds of a step, as published."""
    time: StepTime

    @property
    def error(self) -> float:
        """The forecast's error as a share of the published time; above 0 the forecast is slower."""
        return self.time.forecast / self.seconds - 1

    @property
    def mfu(self) -> float:
        """The published utilisation, counted as the plan does."""
        return self.time.model_flops / (self.seconds * self.time.peak_flops)


def rows() -> list[Row]:
    """Returns the published runs in the file's order."""
    published = json.loads((Path(__file__).parent / "published.json").read_text())
    models = {name: DecoderConfig(family="llama", **sizes) for name, sizes in published["models"].items()}
    return [_row(run, models[run["model"]]) for run in published["rows"]]


def _row(run: dict[str, Any], model: DecoderConfig) -> Row:
    topology = Topology.parse(run["topology"])
    kernel = kernel_of(topology)._replace(backward=run.get("attention_backward", 2.5))
    slots = run["rows"] * run["length"] * run["microbatches"] * topology.devices
    # How often weights are gathered: once more where layers are computed again.
    compute = ComputeConfig(dtype="bfloat16", remat="full" if "gate_up" in run["recomputed"] else "none")
    time = formula_time(
        compute, model, topology, parse_mesh(run["mesh"], topology.devices), slots=slots, span=run["length"],
        microbatches=run["microbatches"], recomputed=run["recomputed"], kernel=kernel,
        balanced=True,
    )  # fmt: skip
    if "seconds" in run:
        return Row(run, run["seconds"], time)
    if "tokens" in run:
        return Row(run, slots / topology.chips / run["tokens"], time)
    # Without causality a token sees a whole row: twice its mean, which is half a token more.
    in_rows, alone = step_flops(model, slots, run["length"]), step_flops(model, slots, 1)
    seen = (in_rows - alone) / ((run["length"] - 1) / 2) * (run["length"] - 1)
    return Row(run, (alone + seen) / (topology.chips * run["tflops"] * 1e12), time)


def fit() -> dict[str, tuple[float, float]]:
    """Returns each chip's shares of products and of attention that come nearest to the runs marked "fit".

    Nearest is the least sum of squared logarithms. TPUs have one share of attention; that of an H100 is not fitted.
    """
    of_chip: dict[str, list[Row]] = {name: [] for name in CHIPS}
    for row in rows():
        of_chip[row.run["topology"].split(":")[0]] += [row] * (row.run["use"] == "fit")

    def nearest(name: str, attention: float) -> tuple[float, float]:
        """The least error of a chip, and the share of products that has it."""
        return min((sum(_error(r, name, p, attention) for r in of_chip[name]), p) for p in _TWENTIETHS)

    tpus = [name for name, chip in CHIPS.items() if chip.torus]
    attention = min(_TWENTIETHS, key=lambda share: sum(nearest(name, share)[0] for name in tpus))
    chosen = {name: attention if name in tpus else chip.attention_share for name, chip in CHIPS.items()}
    return {name: (nearest(name, share)[1], share) for name, share in chosen.items()}


def _error(row: Row, name: str, products: float, attention: float) -> float:
    """The squared logarithm of a run's error with other shares."""
    chip, parts = CHIPS[name], row.time.parts
    rest = sum(parts.values()) - parts["products"] - parts["attention"]
    arithmetic = parts["products"] * chip.product_share / products
    seconds = arithmetic + parts["attention"] * chip.attention_share / attention + rest
    return math.log(max(seconds, row.time.least) / row.seconds) ** 2


def main() -> None:
    if sys.argv[1:] == ["--fit"]:
        for name, (products, attention) in fit().items():
            print(f"{name}: product_share={products}, attention_share={attention}")
        return
    print("| | model | pod, mesh | tokens | computed again | published | forecast | error | MFU | its range | source |")
    print("| --- | --- | --- | --- | --- | ---: | ---: | ---: | ---: | ---: | --- |")
    for row in sorted(rows(), key=lambda row: row.run["use"] == "other"):
        run, time = row.run, row.time
        tokens = f"{run['microbatches']} x {run['rows']} x {run['length']:,}".removeprefix("1 x ")
        source = run["source"] + ("; " + run["note"] if "note" in run else "")
        cells = (
            run["use"], run["model"], f"{run['topology']}, {run['mesh']}", tokens, ", ".join(run["recomputed"]) or "-",
            f"{row.seconds:.3g} s", f"{time.forecast:.3g} s", f"{row.error:+.0%}", f"{row.mfu:.0%}",
            f"{time.mfu:.0%} to {time.most_mfu:.0%}", source,
        )  # fmt: skip
        print("|", " | ".join(cells), "|")


if __name__ == "__main__":
    main()
