"""Units of memory, and the share of a GPU's memory that a run can use."""

GIB = 2**30
# A run can use this share of a GPU's GiB: allocators lose some to fragmentation, and a desktop takes some. CUDA itself
# takes CONTEXT bytes; with NCCL, NCCL_CONTEXT.
USABLE, CONTEXT, NCCL_CONTEXT = 0.93, GIB // 2, GIB


def usable_bytes(gb: float) -> float:
    """Return the bytes that a run can use of a GPU of `gb` GB, which in fact has as many GiB."""
    return USABLE * gb * GIB


def format_gib(count: float) -> str:
    """Return a number of bytes in GiB as text."""
    value = count / GIB
    return f'{value:,.2f} GiB' if value < 10 else f'{value:,.1f} GiB'
