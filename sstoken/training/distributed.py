"""One training run on several devices: a process for each, adapters kept in step by DDP, frozen weights whole or sharded.

``ddp``: every device holds the model.  ``fsdp``: every device holds a shard of the frozen weights (PyTorch's FSDP2), each
decoder layer gathered when it computes and let go again; the adapters, which are small, stay whole, in step by DDP.
Selection looks at one sample at a time, so a run on N devices keeps the same tokens as a run on one.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import NoReturn

import torch
from torch.nn.parallel import DistributedDataParallel

from sstoken.models.anatomy import causal_lm


def launch(devices: int, module: str, arguments: list[str], *, device: str) -> None:
    """Run ``python -m module arguments`` in as many processes, joined by torchrun on this machine.

    Raises:
        RuntimeError: a process failed, or there are fewer GPUs than asked for.
    """
    if device == "cuda" and torch.cuda.device_count() < devices:
        raise RuntimeError(
            f"this run asks for {devices} GPUs, {torch.cuda.device_count()} are here: change `parallel` in the configuration"
        )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={devices}"]
    done = subprocess.run([*command, "-m", module, *arguments], check=False)
    if done.returncode:
        raise RuntimeError(f"a process of this run failed (exit status {done.returncode}); its error stands above")


def leave() -> NoReturn:
    """End one of several processes, all its work done and written, without taking the interpreter apart.

    A thread of the group that lets go of a tensor while the interpreter shuts down aborts the process, now and then, and
    with it the run.  Destroying the group does not end its threads: caches of sharded tensors hold on to it.
    """
    torch.distributed.destroy_process_group()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def shard_frozen(model: torch.nn.Module) -> torch.nn.Module:
    """Shard a model's weights over all ranks, before adapters are added to it; they then belong to no shard.

    To be called in every rank, on a model in host memory, with the process group up.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    lm = causal_lm(model)
    kind = "cuda" if torch.cuda.is_available() and torch.distributed.get_backend() != "gloo" else "cpu"
    mesh = init_device_mesh(kind, (torch.distributed.get_world_size(),))
    for parameter in lm.parameters():
        parameter.requires_grad_(False)
    for layer in lm.get_decoder().layers:
        fully_shard(layer, mesh=mesh, reshard_after_forward=True)
    # embeddings, norm and output projection stay gathered from the forward to the end of the backward pass
    return fully_shard(lm, mesh=mesh, reshard_after_forward=False)


def sharded_parameters(model: torch.nn.Module) -> list[str]:
    from torch.distributed.tensor import DTensor

    return [name for name, parameter in model.named_parameters() if isinstance(parameter, DTensor)]


def is_sharded(model: torch.nn.Module) -> bool:
    return bool(sharded_parameters(model))


def leave_shards_alone(model: torch.nn.Module) -> None:
    """Make DDP ignore the sharded parameters."""
    DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(model, sharded_parameters(model))
