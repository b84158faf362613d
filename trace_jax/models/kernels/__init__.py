"""Kernels: attention over packed rows for TPUs, and matrix products with one matrix for each group of rows."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "flash": ["flash_attention"],
        "grouped": ["grouped_matmul", "grouped_matmul_trained"],
    },
)
