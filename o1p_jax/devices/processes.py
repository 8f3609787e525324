"""The processes of a job work together: one starts things, all share the work, and what one knows all get to know.

A process that is alone is its own leader, and every function here then simply does what it is asked. Small things
travel by JAX's coordination service rather than by the devices, so that waiting for hours is no fault.
"""

import functools
import itertools
import json
import os
import socket
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax._src.distributed import global_state  # the only way to the coordination service; Orbax takes it too
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from o1p_jax.runtime import errors, progress
from o1p_jax.runtime.errors import BadInput, O1pError
from o1p_jax.runtime.place import JobPlace, several_tpu_hosts
from o1p_jax.runtime.supervisor import in_worker, tell_supervisor

T = TypeVar("T")

_HEARTBEAT_S = 20
"""A silent process is given up after at most this long, and the others end."""
_JOINING_S = 1800
"""How long a process waits for the others at the start: the machines of a pod may come one by one."""
_LONGEST_WAIT_MS = 7 * 24 * 3600 * 1000
_calls: dict[str, Iterator[int]] = defaultdict(itertools.count)
"""Name of a thread -> numbers of its calls: all processes' threads of one name talk to each other."""


def start(place: JobPlace | None) -> None:
    """Joins the job's other processes, before anything uses JAX's devices. With None the process stays alone."""
    if place is None:
        return
    jax.config.update("jax_enable_preemption_service", False)  # SIGTERM is ours
    if place.local_device is not None:  # for vLLM's processes too
        seen = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        os.environ["CUDA_VISIBLE_DEVICES"] = str(place.local_device) if seen == [""] else seen[place.local_device]
    if place.coordinator is None:
        try:
            jax.distributed.initialize(initialization_timeout=_JOINING_S, heartbeat_timeout_seconds=_HEARTBEAT_S)
        except ValueError as e:  # JAX found no coordinator
            if several_tpu_hosts(os.environ):
                raise BadInput(
                    "TPU_WORKER_HOSTNAMES: names several hosts, and JAX finds no coordinator among them "
                    f"({' '.join(str(e).split())}); give --coordinator, --processes and --process"
                ) from None
            return
    else:
        progress.say(f"process {place.index} of {place.count}: joining the others at {place.coordinator}")
        jax.distributed.initialize(
            place.coordinator,
            place.count,
            place.index,
            cluster_detection_method="deactivate",
            initialization_timeout=_JOINING_S,
            heartbeat_timeout_seconds=_HEARTBEAT_S,
        )
    hosts = gather(socket.gethostname())
    if in_worker():
        tell_supervisor(hosts)
    if not leader():
        progress.silence()
    progress.say(f"{count()} processes on {len(set(hosts))} hosts; process 0 on {hosts[0]} writes the log")


def place_beside() -> JobPlace | None:
    """Returns this process's place in a second job of the same processes, beside the first one; None if alone."""
    if count() == 1:
        return None
    assert global_state.coordinator_address is not None
    host, port = global_state.coordinator_address.rsplit(":", 1)
    return JobPlace(coordinator=f"{host}:{int(port) + 1}", count=count(), index=index())


def count() -> int:
    """Returns how many processes the job has."""
    return global_state.num_processes


def index() -> int:
    """Returns this process's number in the job, from 0."""
    return global_state.process_id


def leader() -> bool:
    """Returns whether this process is the one that writes what is written once."""
    return index() == 0


def gather(text: str) -> list[str]:
    """Returns every process's `text`, by index.

    All processes must call the function, in threads of the same name in the same order as others of this module.
    """
    if count() == 1:
        return [text]
    thread, client = threading.current_thread().name, global_state.client
    assert client is not None
    call = f"o1p/{thread}/{next(_calls[thread])}"
    client.key_value_set(f"{call}/{index():08}", text)
    client.wait_at_barrier(f"{call}/set", _LONGEST_WAIT_MS)
    texts = [value for _, value in sorted(client.key_value_dir_get(f"{call}/"))]
    client.wait_at_barrier(f"{call}/got", _LONGEST_WAIT_MS)
    if leader():
        client.key_value_delete(f"{call}/")
    return texts


def agreed(flag: bool) -> bool:
    """Returns whether `flag` is true on all processes."""
    return "" not in gather("yes" if flag else "")


def once(function: Callable[[], T]) -> T:
    """Returns on all processes what `function` (its result a JSON value) returns on the leader; the others wait for it.

    An `O1pError` that `function` raises on the leader is raised on all processes.
    """
    if count() == 1:
        return function()
    told = ""
    if leader():
        try:
            told = json.dumps({"result": function()})
        except O1pError as e:
            told = json.dumps({"error": type(e).__name__, "message": str(e)})
    answer = json.loads(gather(told)[0])
    if "error" in answer:
        raise getattr(errors, answer["error"])(answer["message"])
    return answer["result"]


def share(items: Iterable[str], function: Callable[[str], Any]) -> dict[str, Any]:
    """Returns item -> `function(item)` (a JSON value) for all items.

    Each process calls the function for a share of them.
    """
    own = {item: function(item) for item in list(items)[index() :: count()]}
    return {item: value for part in gather(json.dumps(own)) for item, value in json.loads(part).items()}


def any_of(flags: list, mesh: Mesh) -> Callable[[], bool]:
    """Asks whether the list `flags` is not empty on any process now; the returned function waits for the answer.

    The devices exchange the answer between two steps, so that the host need not wait.
    """
    if count() == 1:
        return lambda: bool(flags)
    by_device = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
    own = np.full(1, bool(flags))
    array = jax.make_array_from_callback((mesh.size,), by_device, lambda _: own)
    answer = _to_all(jnp.any, mesh)(array)
    return lambda: bool(answer)


def whole(array: jax.Array) -> np.ndarray:
    """Returns the whole array on this host.

    Where other processes hold parts of it, all processes must call the function.
    """
    if array.is_fully_addressable or array.is_fully_replicated:
        return np.asarray(array)
    assert isinstance(array.sharding, NamedSharding) and isinstance(array.sharding.mesh, Mesh)
    return np.asarray(_to_all(jnp.copy, array.sharding.mesh)(array))


@functools.cache  # a new `jit` would compile again
def _to_all(function: Callable[[jax.Array], jax.Array], mesh: Mesh) -> Callable[[jax.Array], jax.Array]:
    """`function` jitted so that its result is whole on every device."""
    return jax.jit(function, out_shardings=NamedSharding(mesh, PartitionSpec()))
