import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from tiny_trainer import SHAPE, TINY, Trainer, one_step

from o1p_jax.devices.mesh import make_mesh
from o1p_jax.planning.hlo import Collective, OpenLoop, collectives, open_loops

pytestmark = pytest.mark.core
MESH = {"replica": 1, "fsdp": 4, "expert": 1, "context": 1, "tensor": 2}
LOOP = """
%add (a: f32[], b: f32[]) -> f32[] {
  ROOT %sum = f32[] add(%a, %b)
}

%condition (arg: (s32[], f32[8,16])) -> pred[] {
  %limit = s32[] constant(28)
  %i = s32[] get-tuple-element(%arg), index=0
  ROOT %less = pred[] compare(%i, %limit), direction=LT
}

%body (arg: (s32[], f32[8,16])) -> (s32[], f32[8,16]) {
  %x = f32[2,16] get-tuple-element(%arg), index=1
  LINES
  ROOT %out = (s32[], f32[8,16]) tuple(%i, %x)
}

ENTRY %main (x: f32[8,16]) -> f32[8,16] {
  %loop = (s32[], f32[8,16]) while(%start), condition=%condition, body=%body
  ROOT %y = f32[8,16] get-tuple-element(%loop), index=1
}
"""


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "%g = f32[8,16]{1,0} all-gather(%x), channel_id=1, replica_groups=[2,4]<=[4,2]T(1,0), dimensions={0}",
            Collective("all-gather", "fsdp", 28, 28 * 8 * 16 * 4 * 3 // 4),
        ),
        (
            "%g = bf16[8,16]{1,0:T(8,128)(2,1)} all-reduce(%x), channel_id=1, "
            "replica_groups={{0,1},{2,3},{4,5},{6,7}}, to_apply=%add",
            Collective("all-reduce", "tensor", 28, 28 * 8 * 16 * 2),
        ),
        (
            "%g = bf16[2,16] reduce-scatter(%x), channel_id=1, replica_groups=mesh['axis_0'=4,'axis_1'=2] {'axis_0'}",
            Collective("reduce-scatter", "fsdp", 28, 28 * 2 * 16 * 2 * 3),
        ),
        (
            "%g = (bf16[2,16], bf16[8,16]) all-gather-start(%x), channel_id=1, replica_groups=[1,8]<=[8]",
            Collective("all-gather", "fsdp+tensor", 28, 28 * 8 * 16 * 2 * 7 // 8),
        ),
        (
            "%g = ((bf16[2,16], bf16[4,16]), (bf16[8,16], bf16[16,16])) all-gather-start(%x, %y), channel_id=1, "
            "replica_groups=[2,4]<=[4,2]T(1,0)",
            Collective("all-gather", "fsdp", 28, 28 * 24 * 16 * 2 * 3 // 4),
        ),
        (
            "%g = (bf16[8,16], bf16[16,16]) all-reduce-start(%x, %y), channel_id=1, replica_groups=[2,4]<=[4,2]T(1,0)",
            Collective("all-reduce", "fsdp", 28, 28 * 24 * 16 * 2 * 2 * 3 // 4),
        ),
        (
            "%g = (bf16[2,16], bf16[2,16], u32[], u32[]) collective-permute-start(%x), channel_id=1, "
            "source_target_pairs={{0,2},{2,4},{4,6},{6,0},{1,3},{3,5},{5,7},{7,1}}",
            Collective("collective-permute", "fsdp", 28, 28 * 2 * 16 * 2),
        ),
    ],
)
def test_a_collective_in_a_loop(line, expected):
    assert collectives(LOOP.replace("LINES", line), MESH) == [expected]


def test_links_of_a_chain_count_once():
    line = "%gN = f32[8,16] all-gather(%x), channel_id=7, replica_groups=[2,4]<=[4,2]T(1,0), dimensions={0}"
    chain = "\n".join(line.replace("gN", f"g{i}") for i in range(3))
    assert collectives(LOOP.replace("LINES", chain), MESH)[0].times == 28


OPEN = """
%near (arg: (s32[], s32[], f32[8])) -> pred[] {
  ROOT %less = pred[] compare(%i, %end), direction=LT
}

%tile (arg: (s32[], s32[], f32[8])) -> (s32[], s32[], f32[8]) {
  %scores = f32[8] fusion(%x), kind=kCustom, calls=%one
  %seen = f32[8] bitcast(%scores)
  %sum = f32[8] fusion(%seen), kind=kLoop, calls=%two
  ROOT %out = (s32[], s32[], f32[8]) tuple(%i, %end, %sum)
}

%layer (arg: (s32[], f32[8])) -> (s32[], f32[8]) {
  %product = f32[8] custom-call(%x), custom_call_target="__cublas$gemm"
  %keys = (s32[], s32[], f32[8]) while(%start), condition=%near, body=%tile
  ROOT %out = (s32[], f32[8]) tuple(%i, %x)
}

%microbatch (arg: (s32[], f32[8])) -> (s32[], f32[8]) {
  %layers = (s32[], f32[8]) while(%start), condition=%c, body=%layer, backend_config={"known_trip_count":{"n":"28"}}
  ROOT %out = (s32[], f32[8]) tuple(%i, %x)
}

ENTRY %main (x: f32[8]) -> f32[8] {
  %loop = (s32[], f32[8]) while(%start), condition=%near, body=%microbatch
  ROOT %y = f32[8] get-tuple-element(%loop), index=1
}
"""


def test_kernels_of_loops_over_tiles():
    assert open_loops(OPEN) == [OpenLoop(kernels=3, entered=28, depth=2)]  # two fusions and the condition
    known = OPEN.replace("body=%tile", 'body=%tile, backend_config={"known_trip_count":{"n":"4"}}')
    assert open_loops(known) == []


def test_what_a_compiled_program_sends():
    mesh = make_mesh("fsdp:4,tensor:2")
    x = jax.ShapeDtypeStruct((8, 16), jnp.float32, sharding=NamedSharding(mesh, P("fsdp", "tensor")))

    def everywhere(axes):
        program = jax.jit(lambda x: x * 2, out_shardings=NamedSharding(mesh, axes)).lower(x).compile()
        return collectives(program.as_text(), dict(mesh.shape))

    assert everywhere(P("fsdp", "tensor")) == []
    assert everywhere(P(None, "tensor")) == [Collective("all-gather", "fsdp", 1, 8 * 8 * 4 * 3 // 4)]
    assert everywhere(P("fsdp", None)) == [Collective("all-gather", "tensor", 1, 2 * 16 * 4 // 2)]


def program(mesh):
    trainer = Trainer(mesh)
    compiled = trainer.step.lower(trainer.state, trainer.frozen, trainer.placed(one_step())).compile()
    return trainer, compiled, collectives(compiled.as_text(), dict(trainer.mesh.shape))


@pytest.mark.slow
def test_the_step_sends_what_fsdp_promises():
    """Each layer's seven matrices are gathered forward and backward, their gradients reduced, and nothing else is."""
    trainer, compiled, sent = program("8x1")
    assert {c.axis for c in sent} == {"fsdp"}
    of_kind = {c.kind: c for c in sent}
    assert of_kind["all-gather"].times >= 2 * 7 * TINY.layers
    matrices = sum(w.size for w in jax.tree.leaves(trainer.state.params) if w.ndim > 2) * 4
    assert of_kind["all-gather"].bytes >= 2 * matrices * 7 / 8
    reduced = of_kind["all-reduce"].bytes + of_kind["reduce-scatter"].bytes
    assert matrices * 7 / 8 <= reduced <= 2.5 * (matrices + trainer.state.params["embed"][...].nbytes)
    # What stays between steps, gradients' sums among it while they add up, is an eighth on each device.
    whole = sum(x.nbytes for x in jax.tree.leaves(trainer.state))
    assert compiled.memory_analysis().output_size_in_bytes < whole / 8 * 1.2


@pytest.mark.slow
def test_context_sends_keys_and_values_only():
    _, _, sent = program("fsdp:2,context:4")
    gathered = sum(c.bytes for c in sent if c.axis == "context" and c.kind == "all-gather")
    tokens = SHAPE.slots // 2
    keys_and_values = 2 * TINY.layers * tokens * TINY.kv_heads * TINY.head_dim * 4
    assert 0 < gathered <= 1.2 * keys_and_values + 4 * 4 * tokens * TINY.layers
