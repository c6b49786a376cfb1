"""What a Ray cluster is made of, one machine or many, and what each job gets of a node.

    python run_bench.py run compression --on ray                       this machine
    python run_bench.py run compression --on ray --address host:6379   an existing cluster

`bench/run/nodes.py` runs the jobs there.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from bench.run.capacity import Room, room, threads


def connect(address: str | None = None) -> str:
    """Join the cluster at `address`, or at $RAY_ADDRESS, or start one on this machine; its name.

    Nothing is done where this process is connected already. RuntimeError with the way out where
    Ray is missing or unusable, or nothing answers.
    """
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    if address == "local":  # no firewall is in the way of the loopback, and nobody else comes in
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
    ray = ray_module()
    if ray.is_initialized():
        return address
    options = {"include_dashboard": False} if address == "local" else {}
    host, _, port = address.removeprefix("ray://").rpartition(":")
    try:
        if host and port.isdigit():  # Ray itself tries for minutes
            socket.create_connection((host, int(port)), timeout=10).close()
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **options)
    except (OSError, ValueError) as error:
        raise RuntimeError(
            f"no Ray cluster can be joined at {address} ({error}): `ray start --head` starts one; "
            "name it with --address or RAY_ADDRESS, or leave both out to use this machine alone"
        ) from error
    return address


def ray_module() -> Any:
    """The module. RuntimeError says what to install, or what to remove."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anybody
    try:
        import ray
        import ray.exceptions
    except ModuleNotFoundError as error:
        if error.name != "ray":
            raise
        raise RuntimeError(
            "--on ray needs Ray: pip install 'yoto-bench[ray]', "
            "or pip install -e '.[ray]' where the code is"
        ) from None
    try:
        import pyarrow  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name != "pyarrow":
            raise RuntimeError(_PYARROW.format(error)) from error
    except Exception as error:
        raise RuntimeError(_PYARROW.format(error)) from error
    return ray


_PYARROW = (
    "Ray cannot run beside the pyarrow that is installed, which fails to import ({}): nothing here "
    "needs it, so `pip uninstall pyarrow`, or install a version made for this numpy "
    "(pip install 'pyarrow<18' for numpy 1.26)"
)


def failure(error: Exception) -> tuple[Literal["failed", "lost"], str]:
    """How a job ended, and why, of which Ray has this error and no result."""
    errors, text = ray_module().exceptions, str(error)
    if isinstance(error, errors.RayTaskError) or getattr(error, "actor_init_failed", False):
        reason = text.strip(") \n").rpartition("\n")[2]
        if "ModuleNotFoundError" in reason:
            reason += ": the suite and what it needs must be installed on every node"
        return "failed", reason
    if isinstance(error, errors.OutOfMemoryError):
        return "lost", "Ray ended it because its node's memory was short"
    return "lost", "its node was lost" if "node has died" in text else "its process died"


def device(name: str) -> str:
    """For "auto" a GPU where the cluster has one. ValueError where there is none of that kind."""
    gpus = ray_module().cluster_resources().get("GPU", 0)
    if name == "auto":
        return "cuda" if gpus else "cpu"
    if name == "cuda" and not gpus:
        raise ValueError("the Ray cluster has no GPU: use --device cpu")
    if name not in ("cpu", "cuda"):
        raise ValueError(f"--device {name}: Ray chooses among GPUs itself, use auto, cpu or cuda")
    return name


@dataclass(frozen=True, kw_only=True)
class Share:
    """What a job gets of a node: Ray's resources and torch's threads, on a CPU `capacity.threads`
    as everywhere. `crowded` says whether other jobs of this run may use the same device meanwhile.
    """

    cpus: float
    gpus: float
    threads: int
    crowded: bool
    memory: int = 0  # bytes kept for it in a node's main memory

    def slots(self, nodes: Sequence[dict[str, Any]]) -> int:
        """How many such jobs the nodes hold."""
        wants = {"CPU": self.cpus, "GPU": self.gpus, "memory": self.memory}
        return sum(
            min(int(resources.get(name, 0) / want + 1e-9) for name, want in wants.items() if want)
            for resources in (node["Resources"] for node in nodes if node["Alive"])
        )


def nodes() -> list[dict[str, Any]]:
    return list(ray_module().nodes())


def share(nodes: Sequence[dict[str, Any]], kind: str, per_device: int, memory: int = 0) -> Share:
    """The part of a GPU, or of the smallest node's cores, that each of `per_device` jobs gets.

    A node with more cores runs more of them, as far as it has `memory` bytes for each on a CPU (or,
    where a node has less, what it has). RuntimeError where no node can run any.
    """
    wanted = "GPU" if kind == "cuda" else "CPU"
    able = [node for node in nodes if node["Alive"] and node["Resources"].get(wanted, 0) > 0]
    if not able:
        raise RuntimeError(f"the Ray cluster has no node with a {wanted}")
    resources = [node["Resources"] for node in able]
    if kind == "cuda":
        cores = min(each.get("CPU", 1) / each["GPU"] for each in resources)
        many = max(1, int(cores / per_device))
        return Share(cpus=0, gpus=_part(1 / per_device), threads=many, crowded=per_device > 1)
    cpus = _part(min(each["CPU"] for each in resources) / per_device)
    one_machine = len({node["NodeManagerHostname"] for node in able}) < len(able)
    crowded = one_machine or max(each["CPU"] for each in resources) >= 2 * cpus
    memory = int(min([memory, *(each.get("memory", memory) for each in resources)]))
    return Share(cpus=cpus, gpus=0, threads=threads(), crowded=crowded, memory=memory)


def _part(amount: float) -> float:
    """As Ray takes it: whole from one on, else in ten-thousandths, rounded down so that all fit."""
    return float(int(amount)) if amount >= 1 else max(1, int(amount * 1e4)) / 1e4


# Ray makes its GPU the only one that a process sees, but where this is set.
SEES_ALL = "RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"


def see_its_gpu() -> None:
    """In an actor's process, before CUDA begins: "cuda" is to be the GPU that Ray gave it, also
    where the cluster is set up so that every process sees all of them."""
    gpus = ray_module().get_runtime_context().get_accelerator_ids().get("GPU", [])
    if gpus and os.environ.get(SEES_ALL):
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(gpus)


def rooms(kind: str) -> list[Room]:
    """What is free on each node that has a device of `kind`; nodes that do not say in a minute are
    left out.

    Who looks takes no share of a GPU: it does not wait for one, sees them all, and ends at once,
    as what CUDA keeps for a process is free only then.
    """
    ray = ray_module()
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    wanted = "GPU" if kind == "cuda" else "CPU"
    able = [n for n in ray.nodes() if n["Alive"] and n["Resources"].get(wanted, 0) > 0]
    options: dict[str, Any] = {"num_cpus": 0, "max_retries": 0}
    if kind == "cuda":
        options |= {"max_calls": 1, "runtime_env": {"env_vars": {SEES_ALL: "1"}}}
    look = ray.remote(**options)(free)
    asked = {
        look.options(
            scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False),
        ).remote(kind, int(node["Resources"].get("GPU", 0))): node["Resources"]
        for node in able
    }
    ready, _ = ray.wait(list(asked), num_returns=len(asked), timeout=60)
    measured = []
    for ref in ready:
        with contextlib.suppress(ray.exceptions.RayError):  # lost meanwhile
            parts = asked[ref]["GPU"] if kind == "cuda" else threads()
            cores = asked[ref].get("CPU", 1) / parts
            measured.append(Room(free=ray.get(ref), cores=cores))
    return measured


def free(kind: str, gpus: int) -> int:
    """Bytes of this machine's memory, or of the fullest of its first `gpus` GPUs: any of them may
    be given to a network."""
    if kind != "cuda":
        return room(kind).free
    import torch

    places = range(min(gpus, torch.cuda.device_count()))
    return min(int(torch.cuda.mem_get_info(place)[0]) for place in places)
