"""The shape of a decoder, read from and written to a Hugging Face ``config.json``."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from trace_jax.errors import UserError

MODEL_TYPES = ("qwen3", "qwen3_moe", "llama")
_FULL, _SLIDING = "full_attention", "sliding_attention"
_QWEN3_HEAD_DIM, _MAX_WINDOW_LAYERS = 128, 28  # transformers' defaults when config.json names none


@dataclass(frozen=True)
class Llama3Scaling:
    """How Llama 3.1 and later stretch the rotary positions (``rope_type: "llama3"``); see ``rope.rope_frequencies``."""

    factor: float  # wavelengths beyond the original context grow by this
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int  # context of the pre-training, in tokens

    def __post_init__(self) -> None:
        if not 0 < self.low_freq_factor < self.high_freq_factor or self.factor < 1:
            raise UserError(
                f"rope_scaling has factor {self.factor}, low_freq_factor {self.low_freq_factor} and high_freq_factor "
                f"{self.high_freq_factor}: factor must be at least 1, and the low one positive and below the high one"
            )


@dataclass(frozen=True)
class DecoderConfig:
    """Grouped-query attention, rotary positions, RMSNorm and gated SiLU feed-forward networks, dense or of experts.

    With ``num_experts`` > 0 every layer's feed-forward network is a mixture of experts of ``moe_intermediate_size``, of
    which a router picks ``num_experts_per_tok`` (Qwen3-MoE).
    """

    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int  # need not be hidden_size / num_heads
    intermediate_size: int
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-6
    tie_embeddings: bool = False  # the output head is the embedding matrix
    qk_norm: bool = True  # RMSNorm on each query and key head: Qwen3 has it, Llama does not
    max_position_embeddings: int = 32768  # longest sequence, in tokens, that the weights were trained for
    num_experts: int = 0  # 0: dense
    num_experts_per_tok: int = 0
    moe_intermediate_size: int = 0  # width of one expert
    norm_topk_prob: bool = False  # the chosen experts' probabilities are rescaled to sum to 1
    rope_scaling: Llama3Scaling | None = None
    # Tokens that a query of each layer sees, itself included; None: all before it. Empty: every layer sees all.
    layer_windows: tuple[int | None, ...] = ()

    def __post_init__(self) -> None:
        if self.num_heads % self.num_kv_heads:
            raise UserError(f"num_heads {self.num_heads} is not a multiple of num_kv_heads {self.num_kv_heads}")
        if self.head_dim % 2:
            raise UserError(f"head_dim {self.head_dim} is odd: rotary positions need an even width")
        if self.num_experts and not (1 <= self.num_experts_per_tok <= self.num_experts and self.moe_intermediate_size):
            raise UserError(
                f"num_experts {self.num_experts} with num_experts_per_tok {self.num_experts_per_tok} and "
                f"moe_intermediate_size {self.moe_intermediate_size}: give both, and choose no more than there are"
            )
        windows = {window for window in self.layer_windows if window is not None}
        if self.layer_windows and (len(self.layer_windows) != self.num_layers or len(windows) != 1 or min(windows) < 1):
            raise UserError(
                f"layer_windows {self.layer_windows} must be empty, or hold one entry for each of the "
                f"{self.num_layers} layers: None, or the one window of all windowed layers, at least 1"
            )

    def window(self, layer: int) -> int | None:
        """How many of the last tokens a layer's attention sees; None: all."""
        return self.layer_windows[layer] if self.layer_windows else None

    @property
    def model_type(self) -> str:
        """The Hugging Face family that computes the same function."""
        return ("qwen3_moe" if self.num_experts else "qwen3") if self.qk_norm else "llama"

    @classmethod
    def from_huggingface(cls, data: Mapping[str, Any]) -> "DecoderConfig":
        """Read a ``config.json`` as transformers 4 or 5 writes it; refuse what would compute something else.

        Raises:
            UserError: an unsupported ``model_type``, rope scaling, layer type, bias, activation, quantization or
                mixture of dense and expert layers; a missing or ill-typed field.
        """
        model_type = data.get("model_type")
        if model_type not in MODEL_TYPES:
            raise UserError(f"model_type {model_type!r} is not supported; use one of {', '.join(MODEL_TYPES)}")
        _refuse_unsupported(data)
        try:
            heads, width = int(data["num_attention_heads"]), int(data["hidden_size"])
            default_head_dim = _QWEN3_HEAD_DIM if model_type != "llama" else width // heads
            return cls(
                vocab_size=int(data["vocab_size"]),
                hidden_size=width,
                num_layers=int(data["num_hidden_layers"]),
                num_heads=heads,
                num_kv_heads=int(_given(data, "num_key_value_heads", heads)),
                head_dim=int(_given(data, "head_dim", default_head_dim)),
                intermediate_size=int(data["intermediate_size"]),
                rope_theta=float(_given(_rope(data), "rope_theta", _given(data, "rope_theta", 10000.0))),
                rms_norm_eps=float(_given(data, "rms_norm_eps", 1e-6)),
                tie_embeddings=bool(_given(data, "tie_word_embeddings", False)),
                qk_norm=model_type != "llama",
                max_position_embeddings=int(_given(data, "max_position_embeddings", 32768)),
                rope_scaling=_rope_scaling(data),
                layer_windows=_layer_windows(data),
                **(_experts(data) if model_type == "qwen3_moe" else {}),
            )
        except KeyError as error:
            raise UserError(f"config.json lacks {error}; take it from the model's original repository") from None
        except (TypeError, ValueError) as error:
            raise UserError(f"config.json holds an ill-typed value: {error}") from None

    def to_huggingface(self) -> dict[str, Any]:
        """A ``config.json`` that transformers (4 and 5) and inference servers read back to the same function."""
        architecture = {"qwen3": "Qwen3", "qwen3_moe": "Qwen3Moe", "llama": "Llama"}[self.model_type]
        experts = {
            "num_experts": self.num_experts,
            "num_experts_per_tok": self.num_experts_per_tok,
            "moe_intermediate_size": self.moe_intermediate_size,
            "norm_topk_prob": self.norm_topk_prob,
        }
        scaling = {"rope_type": "llama3", **asdict(self.rope_scaling)} if self.rope_scaling else {}
        return {
            "architectures": [f"{architecture}ForCausalLM"],
            "model_type": self.model_type,
            "vocab_size": self.vocab_size,
            "hidden_size": self.hidden_size,
            "num_hidden_layers": self.num_layers,
            "num_attention_heads": self.num_heads,
            "num_key_value_heads": self.num_kv_heads,
            "head_dim": self.head_dim,
            "intermediate_size": self.intermediate_size,
            "hidden_act": "silu",
            "rope_theta": self.rope_theta,  # this and rope_scaling are read by transformers 4, the third by version 5
            "rope_scaling": scaling or None,
            "rope_parameters": {"rope_type": "default", **scaling, "rope_theta": self.rope_theta},
            "rms_norm_eps": self.rms_norm_eps,
            "tie_word_embeddings": self.tie_embeddings,
            "attention_bias": False,
            "max_position_embeddings": self.max_position_embeddings,
            "bos_token_id": None,  # without these two, transformers fills in the family's own ids
            "eos_token_id": None,
            **(experts if self.num_experts else {}),
            **(self._windows_to_huggingface() if self.layer_windows else {}),
        }

    def _windows_to_huggingface(self) -> dict[str, Any]:
        window = next(window for window in self.layer_windows if window is not None)
        data: dict[str, Any] = {"use_sliding_window": True, "sliding_window": window}
        if not self.num_experts:  # transformers' Qwen3-MoE knows one kind of layer only
            data["layer_types"] = [_FULL if window is None else _SLIDING for window in self.layer_windows]
        return data


def _given(data: Mapping[str, Any], key: str, default: Any) -> Any:
    value = data.get(key)
    return default if value is None else value


def _rope(data: Mapping[str, Any]) -> Mapping[str, Any]:
    found = data.get("rope_parameters")
    return found if isinstance(found, Mapping) else {}


def _rope_scaling(data: Mapping[str, Any]) -> Llama3Scaling | None:
    scaling = data.get("rope_scaling") or _rope(data)
    rope_type = _given(scaling, "rope_type", _given(scaling, "type", "default"))
    if rope_type == "default":
        return None
    if rope_type != "llama3":
        raise UserError(f"rope_scaling {rope_type!r} is not supported; use a model with 'default' or 'llama3'")
    return Llama3Scaling(
        factor=float(scaling["factor"]),
        low_freq_factor=float(scaling["low_freq_factor"]),
        high_freq_factor=float(scaling["high_freq_factor"]),
        original_max_position_embeddings=int(scaling["original_max_position_embeddings"]),
    )


def _layer_windows(data: Mapping[str, Any]) -> tuple[int | None, ...]:
    """The layers that slide, as transformers decides: Qwen3 by ``layer_types``, else from ``max_window_layers`` on."""
    layers, family, window = int(data["num_hidden_layers"]), data["model_type"], int(_given(data, "sliding_window", 0))
    sliding = bool(data.get("use_sliding_window")) and data.get("sliding_window") is not None
    if (sliding or window) and family == "llama":
        raise UserError(f"sliding_window {window!r} is not supported for model_type 'llama'; use full attention")
    kinds, first = data.get("layer_types"), data.get("max_window_layers")
    if kinds and (len(kinds) != layers or set(kinds) - {_FULL, _SLIDING} or (_SLIDING in kinds and not sliding)):
        raise UserError(
            f"layer_types {sorted(set(kinds))} for {len(kinds)} of {layers} layers is not supported; use {_FULL!r}, or "
            f"{_SLIDING!r} together with use_sliding_window and sliding_window"
        )
    if not sliding:
        return ()
    if family == "qwen3_moe":
        if first or _FULL in (kinds or ()):
            raise UserError(
                f"max_window_layers {first!r} and layer_types {kinds!r} with use_sliding_window mean different things "
                "to different versions of transformers for model_type 'qwen3_moe': leave both out if every layer slides"
            )
        return (window,) * layers
    start = int(_given(data, "max_window_layers", _MAX_WINDOW_LAYERS))
    kinds = kinds or [_SLIDING if index >= start else _FULL for index in range(layers)]
    windows = tuple(window if kind == _SLIDING else None for kind in kinds)
    return windows if any(entry is not None for entry in windows) else ()


def _experts(data: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "num_experts": int(data["num_experts"] if "num_experts" in data else data["num_local_experts"]),
        "num_experts_per_tok": int(data["num_experts_per_tok"]),
        "moe_intermediate_size": int(data["moe_intermediate_size"]),
        "norm_topk_prob": bool(_given(data, "norm_topk_prob", False)),
    }


def _refuse_unsupported(data: Mapping[str, Any]) -> None:
    if quantization := data.get("quantization_config"):
        method = quantization.get("quant_method") if isinstance(quantization, Mapping) else quantization
        raise UserError(f"quantization_config {method!r} is not supported; use the unquantized weights")
    if (activation := _given(data, "hidden_act", "silu")) != "silu":
        raise UserError(f"hidden_act {activation!r} is not supported; use a model with 'silu'")
    experts = data.get("num_experts") or data.get("num_local_experts")
    if experts and data.get("model_type") != "qwen3_moe":
        raise UserError(f"num_experts {experts!r} is not supported for model_type {data.get('model_type')!r}")
    if (dense := data.get("mlp_only_layers")) or (dense := _given(data, "decoder_sparse_step", 1)) != 1:
        raise UserError(f"dense layers among experts ({dense!r}) are not supported; use a model of one kind")
    for name in ("attention_bias", "mlp_bias"):
        if data.get(name):
            raise UserError(f"{name} true is not supported; use a model without biases")
    if (partial := _given(_rope(data), "partial_rotary_factor", _given(data, "partial_rotary_factor", 1.0))) != 1.0:
        raise UserError(f"partial_rotary_factor {partial!r} is not supported; use a model that rotates whole heads")
