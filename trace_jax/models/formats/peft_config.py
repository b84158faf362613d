"""``adapter_config.json`` of PEFT: what is refused, and which modules it adapts. Needs no JAX and no transformers.

The relay's machine, which has neither, checks adapters with it too.
"""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import regex

from trace_jax.errors import UserError
from trace_jax.models.formats.json_files import shown

ADAPTER_CONFIG, ADAPTER_WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX, LORA_A, LORA_B = "base_model.model.", ".lora_A.weight", ".lora_B.weight"  # around a module, in a tensor's name
_LARGEST_FLOAT32 = 3.4028234e38
_MATCH_SECONDS = 1.0  # for one module name: a regular expression may take time that is exponential in its length

# The fields of LoraConfig (PEFT 0.21) that do not change what a saved adapter computes, or that are read elsewhere.
_READ = {
    *("alpha_pattern", "exclude_modules", "init_lora_weights", "lora_alpha", "peft_type", "r", "rank_pattern"),
    *("target_modules", "target_parameters"),
}
_WITHOUT_EFFECT = {
    *("auto_mapping", "base_model_name_or_path", "inference_mode", "peft_version", "revision", "task_type"),
    *("corda_config", "eva_config", "loftq_config", "lora_ga_config"),  # of initialisations, which are checked by name
    *("layers_pattern", "qalora_group_size"),  # of layers_to_transform and of use_qalora
    *("ensure_weight_tying", "lora_dropout", "megatron_config", "megatron_core", "runtime_config", "velora_config"),
}
# What leaves the base as it is. The others (pissa, olora, loftq, corda, lora_ga) subtract the new adapter from it.
_PLAIN_INITIALISATIONS = ("eva", "gaussian", "mica", "orthogonal")


def refuse_unsupported(where: str | Path, data: dict[str, Any]) -> None:
    """Raise UserError unless ``data`` configures a plain LoRA adapter: one that adds scale · x a b to its base.

    ``where`` names the adapter in the message. Fields that PEFT may get in the future are refused unless they are
    empty.
    """
    if (kind := data.get("peft_type")) != "LORA":
        raise UserError(f"{where} has peft_type {shown(kind)}; only 'LORA' is supported")
    start = data.get("init_lora_weights", True)
    if not isinstance(start, bool | None) and str(start).lower() not in _PLAIN_INITIALISATIONS:
        raise UserError(
            f"{where} has init_lora_weights {shown(start)}, which changes the base at the start of the training: save "
            "the adapter with PEFT's path_initial_model_for_weight_conversion, which makes plain LoRA of it"
        )
    for key, value in data.items():
        if key in _READ or key in _WITHOUT_EFFECT or (key == "bias" and value == "none"):
            continue
        if value is not None and value is not False and value != {} and value != []:
            name = key if key.isidentifier() else shown(key)
            raise UserError(
                f"{where} has {name} {shown(value)}, which is not supported: train the adapter as plain LoRA"
            )


def rank_and_alpha(where: str | Path, data: dict[str, Any]) -> tuple[int, float]:
    """``r`` and ``lora_alpha``. Raises UserError unless they are a whole and a finite number, both positive."""
    rank, alpha = data.get("r"), data.get("lora_alpha")
    if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
        raise UserError(f"{where} has r {shown(rank)}: it must be a whole number of at least 1")
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not 0 < alpha <= _LARGEST_FLOAT32:
        raise UserError(f"{where} has lora_alpha {shown(alpha)}: it must be a finite number above 0")
    return rank, float(alpha)


def module_filter(where: str | Path, data: dict[str, Any]) -> Callable[[str], bool]:
    """Whether PEFT adapts a module, by its full name (``model.layers.0.self_attn.q_proj``).

    As in PEFT, ``target_modules`` and ``exclude_modules`` are a regular expression for the full name, or names of
    which each means a module and all that end with it.

    Raises UserError for values of another kind, and if no module is targeted at all.
    """
    targets = data.get("target_modules")
    if not targets and not data.get("target_parameters"):
        raise UserError(f"{where} has target_modules {shown(targets)}: name the modules that it adapts")
    included = _matcher(where, "target_modules", targets)
    excluded = _matcher(where, "exclude_modules", data.get("exclude_modules"))
    if isinstance(targets, str) and targets.lower() == "all-linear":
        return lambda name: not excluded(name)
    return lambda name: included(name) and not excluded(name)


def _matcher(where: str | Path, key: str, value: Any) -> Callable[[str], bool]:
    if not value:
        return lambda name: False
    if isinstance(value, str):
        try:
            pattern = regex.compile(value)
        except (regex.error, OverflowError, RecursionError) as error:
            raise UserError(f"{where} has {key} {shown(value)}, which is no regular expression ({error})") from None

        def fits(name: str) -> bool:
            try:
                return pattern.fullmatch(name, timeout=_MATCH_SECONDS) is not None
            except TimeoutError:
                raise UserError(
                    f"{where} has {key} {shown(value)}, which takes longer than {_MATCH_SECONDS:g} s to match {name}: "
                    "write it without nested repetitions, or list the modules"
                ) from None

        return fits
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise UserError(f"{where} has {key} {shown(value)}: it must be a list of module names or a regular expression")
    names = frozenset(value)

    def ends_with_one(name: str) -> bool:
        parts = name.split(".")
        return any(".".join(parts[start:]) in names for start in range(len(parts)))

    return ends_with_one


def refuse_unservable(where: str | Path, data: dict[str, Any], targets: Collection[str]) -> None:
    """Raise UserError for what SGLang would die of, or compute otherwise than PEFT.

    ``data`` is the configuration, ``targets`` the projections that the adapter has in a layer.
    """
    for key in ("target_parameters", "rank_pattern", "alpha_pattern"):
        if data.get(key):
            raise UserError(
                f"{where} has {key} {shown(data[key])}, which SGLang does not read: use one rank and one alpha"
            )
    modules, excluded = data.get("target_modules"), data.get("exclude_modules")
    if excluded or not isinstance(modules, list) or set(targets) - set(modules):
        raise UserError(
            f"{where} has target_modules {shown(modules)} and exclude_modules {shown(excluded)}: SGLang needs a list "
            "of projections, each adapted in every layer; save the adapter with such a list"
        )
    attention = {"q_proj", "k_proj", "v_proj"} & set(targets)
    if attention and not {"q_proj", "v_proj"} <= attention:
        raise UserError(
            f"{where} adapts {', '.join(sorted(attention))}: SGLang takes q_proj and v_proj together, with or without "
            "k_proj, and dies of k_proj or v_proj alone; change training.target_modules"
        )
    if "up_proj" in targets and "gate_proj" not in targets:
        raise UserError(f"{where} adapts up_proj without gate_proj, which SGLang ignores: adapt both, or gate_proj")
