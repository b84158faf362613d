"""Experts that a checkpoint holds in one tensor of each layer, as transformers 5 does: ``gate_up_proj [E, 2F, D]``."""

from trace_jax.errors import UserError
from trace_jax.models.config import DecoderConfig
from trace_jax.models.decoder import layer_shapes
from trace_jax.models.formats.parameters import module_names
from trace_jax.models.formats.tensors import TensorFiles


def split_fused_experts(files: TensorFiles, config: DecoderConfig) -> None:
    """Make every expert's matrices readable under their own names where one tensor holds those of a layer.

    The halves of an expert's part follow each other in the order of ``Family.fused``, each ``[out, in]``.

    Raises UserError for such a tensor of another shape, and for an expert that is stored alone as well.
    """
    for suffix, parameters in config.family.fused.items():
        modules = [module_names(config, name) for name in parameters]  # [L, E] each
        shapes = [layer_shapes(config)[name][:0:-1] for name in parameters]
        whole = (config.num_experts, sum(out for out, _ in shapes), shapes[0][1])
        for layer in range(config.num_layers):
            name = f"model.layers.{layer}.{suffix}"
            if name not in files.names():
                continue
            if files.shape(name) != whole:
                raise UserError(
                    f"{files.path(name)}: tensor {name!r} has shape {files.shape(name)}, the configuration says "
                    f"{whole}: use weights that belong to the configuration"
                )
            parts = [
                (f"{module[layer, expert]}.weight", shape)
                for expert in range(config.num_experts)
                for module, shape in zip(modules, shapes, strict=True)
            ]
            files.split(name, parts)
