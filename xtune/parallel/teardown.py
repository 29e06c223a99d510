"""The end of process groups: a group that is destroyed goes on, with its threads, while anything refers to it.

A thread of gloo that lets go of a tensor while the interpreter is ending aborts the process.
"""

import gc

import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh


def destroy_groups() -> None:
    """Destroy all process groups; gloo's threads are joined, unless the caller still refers to a group."""
    dist.destroy_process_group()
    gc.collect()  # models are cycles
    # DTensor's caches keep meshes for ever. Until here a mesh needs its groups: compiled code looks them up in it.
    for found in gc.get_objects():
        if type(found) is DeviceMesh:
            getattr(found, '_pg_registry', {}).clear()  # not all torch versions have it
