"""Stands in for SGLang's compiled kernels, made for GPUs: names can be imported, no function can be called."""

__version__ = "0.4.10"


def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)

    def missing(*arguments, **named):
        raise NotImplementedError(f"sgl_kernel.{name} does not exist on a CPU")

    return missing
