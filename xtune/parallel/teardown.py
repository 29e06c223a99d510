"""Destroys process groups: a destroyed group lives on, with its threads, while anything refers to it.

A thread of gloo that frees a tensor while the interpreter is shutting down aborts the process.
"""

import gc

import torch.distributed as dist

from ..compat.torch_private import release_mesh_groups


def destroy_groups() -> None:
    """Destroy all process groups; gloo's threads are joined, unless the caller still refers to a group."""
    dist.destroy_process_group()
    gc.collect()  # models are reference cycles
    release_mesh_groups()  # not earlier: compiled code looks up the groups of a mesh
