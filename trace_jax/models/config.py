"""The shape of a decoder, read from and written to a Hugging Face ``config.json``."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trace_jax.contract.record import ContractError

MODEL_TYPES = ("qwen3", "qwen3_moe", "llama")
_QWEN3_HEAD_DIM = 128  # transformers' default when config.json names none


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

    def __post_init__(self) -> None:
        if self.num_heads % self.num_kv_heads:
            raise ContractError(f"num_heads {self.num_heads} is not a multiple of num_kv_heads {self.num_kv_heads}")
        if self.head_dim % 2:
            raise ContractError(f"head_dim {self.head_dim} is odd: rotary positions need an even width")
        if self.num_experts and not (1 <= self.num_experts_per_tok <= self.num_experts and self.moe_intermediate_size):
            raise ContractError(
                f"num_experts {self.num_experts} with num_experts_per_tok {self.num_experts_per_tok} and "
                f"moe_intermediate_size {self.moe_intermediate_size}: give both, and choose no more than there are"
            )

    @property
    def model_type(self) -> str:
        """The Hugging Face family that computes the same function."""
        return ("qwen3_moe" if self.num_experts else "qwen3") if self.qk_norm else "llama"

    @classmethod
    def from_huggingface(cls, data: Mapping[str, Any]) -> "DecoderConfig":
        """Read a ``config.json`` as transformers 4 or 5 writes it; refuse what would compute something else.

        Raises:
            ContractError: an unsupported ``model_type``, rope scaling, sliding window, bias, activation or mixture of
                dense and expert layers; a missing or ill-typed field.
        """
        model_type = data.get("model_type")
        if model_type not in MODEL_TYPES:
            raise ContractError(f"model_type {model_type!r} is not supported; use one of {', '.join(MODEL_TYPES)}")
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
                **(_experts(data) if model_type == "qwen3_moe" else {}),
            )
        except KeyError as error:
            raise ContractError(f"config.json lacks {error}; take it from the model's original repository") from None
        except (TypeError, ValueError) as error:
            raise ContractError(f"config.json holds an ill-typed value: {error}") from None

    def to_huggingface(self) -> dict[str, Any]:
        """A ``config.json`` that transformers (4 and 5) and inference servers read back to the same function."""
        architecture = {"qwen3": "Qwen3", "qwen3_moe": "Qwen3Moe", "llama": "Llama"}[self.model_type]
        experts = {
            "num_experts": self.num_experts,
            "num_experts_per_tok": self.num_experts_per_tok,
            "moe_intermediate_size": self.moe_intermediate_size,
            "norm_topk_prob": self.norm_topk_prob,
        }
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
            "rope_theta": self.rope_theta,  # read by transformers 4; version 5 reads rope_parameters
            "rope_parameters": {"rope_theta": self.rope_theta, "rope_type": "default"},
            "rms_norm_eps": self.rms_norm_eps,
            "tie_word_embeddings": self.tie_embeddings,
            "attention_bias": False,
            "max_position_embeddings": self.max_position_embeddings,
            "bos_token_id": None,  # without these two, transformers fills in the family's own ids
            "eos_token_id": None,
            **(experts if self.num_experts else {}),
        }


def _given(data: Mapping[str, Any], key: str, default: Any) -> Any:
    value = data.get(key)
    return default if value is None else value


def _rope(data: Mapping[str, Any]) -> Mapping[str, Any]:
    found = data.get("rope_parameters")
    return found if isinstance(found, Mapping) else {}


def _experts(data: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "num_experts": int(data["num_experts"] if "num_experts" in data else data["num_local_experts"]),
        "num_experts_per_tok": int(data["num_experts_per_tok"]),
        "moe_intermediate_size": int(data["moe_intermediate_size"]),
        "norm_topk_prob": bool(_given(data, "norm_topk_prob", False)),
    }


def _refuse_unsupported(data: Mapping[str, Any]) -> None:
    scaling = data.get("rope_scaling") or _rope(data)
    rope_type = _given(scaling, "rope_type", _given(scaling, "type", "default"))
    if rope_type != "default":
        raise ContractError(f"rope_scaling {rope_type!r} is not supported; use a model with plain rotary positions")
    if data.get("use_sliding_window") or (data.get("sliding_window") and data.get("model_type") == "llama"):
        raise ContractError(f"sliding_window {data.get('sliding_window')!r} is not supported; use full attention")
    if any(kind != "full_attention" for kind in data.get("layer_types") or ()):
        raise ContractError(f"layer_types {sorted(set(data['layer_types']))} is not supported; use full attention")
    if (activation := _given(data, "hidden_act", "silu")) != "silu":
        raise ContractError(f"hidden_act {activation!r} is not supported; use a model with 'silu'")
    experts = data.get("num_experts") or data.get("num_local_experts")
    if experts and data.get("model_type") != "qwen3_moe":
        raise ContractError(f"num_experts {experts!r} is not supported for model_type {data.get('model_type')!r}")
    if (dense := data.get("mlp_only_layers")) or (dense := _given(data, "decoder_sparse_step", 1)) != 1:
        raise ContractError(f"dense layers among experts ({dense!r}) are not supported; use a model of one kind")
    for name in ("attention_bias", "mlp_bias"):
        if data.get(name):
            raise ContractError(f"{name} true is not supported; use a model without biases")
    if (partial := _given(_rope(data), "partial_rotary_factor", _given(data, "partial_rotary_factor", 1.0))) != 1.0:
        raise ContractError(f"partial_rotary_factor {partial!r} is not supported; use a model that rotates whole heads")
