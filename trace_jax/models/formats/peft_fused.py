"""PEFT's layout for experts that one tensor holds: one pair of matrices for all experts of a layer.

transformers 5 holds a layer's ``gate_proj`` and ``up_proj`` as ``gate_up_proj [E, 2F, D]``. PEFT (0.21) then trains and
stores ``lora_A [E·R, in]`` and ``lora_B [out, R·E]``, named by ``target_parameters``. As adapters of single experts
the two halves of gate_up_proj share their ``a``.
"""

from pathlib import Path
from typing import Any

import jax

from trace_jax.errors import UserError
from trace_jax.models.config import DecoderConfig
from trace_jax.models.formats.json_files import shown
from trace_jax.models.formats.peft_config import rank_and_alpha

Pair = dict[str, jax.Array]
_GATE_UP, _DOWN = "gate_up_proj", "down_proj"
_PATTERN = rf".*\.{_GATE_UP}"  # PEFT writes it when it converts adapters of single experts


def fused_ranks(path: Path, data: dict[str, Any], config: DecoderConfig, rank: int, alpha: float) -> dict[str, int]:
    """The fused parameters that an adapter's configuration ``data`` targets, each with its rank; in PEFT's order.

    Raises UserError for other parameters, and for ranks or alphas by patterns that do not leave one alpha / rank.
    """
    parameters = data.get("target_parameters") or []
    named = [str(name).removeprefix("mlp.experts.") for name in parameters] if isinstance(parameters, list) else [""]
    if named and (not config.num_experts or set(named) - {_GATE_UP, _DOWN}):
        raise UserError(
            f"{path} has target_parameters {shown(parameters)}; supported are the experts' {_GATE_UP} and "
            f"{_DOWN} of a mixture of experts"
        )
    ranks, alphas = data.get("rank_pattern") or {}, data.get("alpha_pattern") or {}
    if ranks or alphas:
        known = isinstance(ranks, dict) and isinstance(alphas, dict) and {*ranks, *alphas} == {_PATTERN}
        own = {"r": ranks.get(_PATTERN, rank), "lora_alpha": alphas.get(_PATTERN, alpha)} if known else {}
        if _GATE_UP in named and known:
            own_rank, own_alpha = rank_and_alpha(path, own)
            known = own_alpha * rank == alpha * own_rank
        if _GATE_UP not in named or not known:
            raise UserError(
                f"{path} has rank_pattern {shown(ranks)} and alpha_pattern {shown(alphas)}, which is not supported: "
                "train the adapter with one rank and one alpha"
            )
    return {
        name: ranks.get(_PATTERN, rank) if name == _GATE_UP else rank for name in (_GATE_UP, _DOWN) if name in named
    }


def fused_module(name: str, fused: dict[str, int]) -> str:
    """The module path below a layer that PEFT stores a parameter's matrices under: the first of two is inside."""
    return "mlp.experts.base_layer" if name == _GATE_UP and _DOWN in fused else "mlp.experts"


def fused_shape(config: DecoderConfig, name: str) -> tuple[int, int]:
    """``(in, out)`` of one expert's part."""
    D, F = config.hidden_size, config.moe_intermediate_size
    return (D, 2 * F) if name == _GATE_UP else (F, D)


def unfused(config: DecoderConfig, name: str, pair: Pair) -> dict[str, Pair]:
    """Each projection's adapters, ``a [1, L, E, in, R]`` and ``b [1, L, E, R, out]``.

    ``pair`` is what is stored, turned: ``a [1, L, in, E·R]``, ``b [1, L, R·E, out]``.
    """
    E, F = config.num_experts, config.moe_intermediate_size
    a, b = pair["a"], pair["b"]
    a = a.reshape(*a.shape[:-1], E, -1).transpose(0, 1, 3, 2, 4)
    b = b.reshape(*b.shape[:2], -1, E, b.shape[-1]).transpose(0, 1, 3, 2, 4)
    if name == _DOWN:
        return {_DOWN: {"a": a, "b": b}}
    return {"gate_proj": {"a": a, "b": b[..., :F]}, "up_proj": {"a": a, "b": b[..., F:]}}
