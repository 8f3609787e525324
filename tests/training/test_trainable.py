import jax
import pytest
from drive_train import MODEL

from o1p_jax.models.decoder import abstract_params
from o1p_jax.models.families import read_config
from o1p_jax.runtime.errors import BadInput
from o1p_jax.training.trainable import layer_splits, split_frozen


def test_only_the_last_stack_is_trainable():
    cfg = read_config(MODEL | {"num_hidden_layers": 3})
    splits = layer_splits(3, 2)
    assert splits == (1, 2) and layer_splits(3, None) is None and layer_splits(3, 3) == (3,)
    trainable, frozen = split_frozen(abstract_params(cfg, splits), splits)
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(trainable)]
    assert paths and all(path.startswith("['stacks'][1]") for path in paths)
    assert all(leaf.shape[0] == 2 for leaf in jax.tree.leaves(trainable))
    names = "".join(jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(frozen))
    assert "['embed']" in names and "['norm']" in names and "['stacks'][0]" in names
    with pytest.raises(BadInput, match=r"compute.trainable_layers=4: the model has 3 layers"):
        layer_splits(3, 4)
