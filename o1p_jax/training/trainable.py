"""Which of the decoder's parameters are trained, and which are frozen."""

from flax import nnx

from o1p_jax.runtime.errors import BadInput


def layer_splits(layers: int, trainable_layers: int | None) -> tuple[int, ...] | None:
    """Returns the lengths of the decoder's stacks, of which the last is trained; None trains the whole model.

    Raises `BadInput` for more trainable layers than the model has.
    """
    if trainable_layers is None:
        return None
    if trainable_layers > layers:
        raise BadInput(f"compute.trainable_layers={trainable_layers}: the model has {layers} layers")
    return (layers,) if trainable_layers == layers else (layers - trainable_layers, trainable_layers)


def split_frozen(params: nnx.State, splits: tuple[int, ...] | None) -> tuple[nnx.State, nnx.State]:
    """Returns the decoder's (trainable, frozen) parameters; with `splits`, only the last stack is trainable."""
    if splits is None:
        return params, nnx.State({})
    last = ("stacks", len(splits) - 1)
    trainable, frozen = nnx.split_state(params, lambda path, _: path[:2] == last, ...)
    return trainable, frozen
