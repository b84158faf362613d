"""The shape of a decoder. ``formats.config_json`` reads it from a model's ``config.json`` and writes it back."""

from dataclasses import dataclass

from trace_jax.errors import UserError
from trace_jax.models.families import Family, family_of
from trace_jax.models.formats.json_files import shown

LARGEST_SIZE = 1 << 24  # of a width, a vocabulary or a number of heads
LARGEST_COUNT = 4096  # of layers or experts
LARGEST_INT32 = (1 << 31) - 1  # positions and windows are int32 on devices
_LARGEST_FLOAT32 = 3.4028234e38
_SIZES = ("vocab_size", "hidden_size", "num_heads", "num_kv_heads", "head_dim")


@dataclass(frozen=True)
class Llama3Scaling:
    """How Llama 3.1 and later stretch the rotary positions (``rope_type: "llama3"``); see ``rope.rope_frequencies``.

    Raises UserError for factors that are not finite, too small or in the wrong order.
    """

    factor: float  # wavelengths beyond the original context grow by this
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int  # context of the pre-training, in tokens

    def __post_init__(self) -> None:
        if not (0 < self.low_freq_factor < self.high_freq_factor <= _LARGEST_FLOAT32 >= self.factor >= 1):
            raise UserError(
                f"rope_scaling has factor {self.factor}, low_freq_factor {self.low_freq_factor} and high_freq_factor "
                f"{self.high_freq_factor}: factor must be at least 1, and the low one positive and below the high one"
            )
        require_whole("original_max_position_embeddings", self.original_max_position_embeddings, 1, LARGEST_INT32)


@dataclass(frozen=True)
class DecoderConfig:
    """Grouped-query attention, rotary positions, RMSNorm and gated SiLU feed-forward networks, dense or of experts.

    If ``num_experts`` > 0, the feed-forward network of every layer is a mixture of experts of width
    ``moe_intermediate_size``, and a router picks ``num_experts_per_tok`` of them for every token.

    Raises UserError for sizes that are not whole, positive and of a possible magnitude, or that do not fit together.
    """

    vocab_size: int
    hidden_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int  # need not be hidden_size / num_heads
    intermediate_size: int  # not used by a mixture of experts
    rope_theta: float = 10000.0
    rms_norm_eps: float = 1e-6
    tie_embeddings: bool = False  # the output head is the embedding matrix
    model_type: str = "qwen3"  # a row of families.FAMILIES
    max_position_embeddings: int = 32768  # longest sequence, in tokens, that the weights were trained for
    num_experts: int = 0  # 0: dense
    num_experts_per_tok: int = 0
    moe_intermediate_size: int = 0  # width of one expert
    norm_topk_prob: bool = False  # the chosen experts' probabilities are rescaled to sum to 1
    rope_scaling: Llama3Scaling | None = None
    # Tokens that a query of each layer sees, itself included; None: all before it. Empty: every layer sees all.
    layer_windows: tuple[int | None, ...] = ()

    def __post_init__(self) -> None:
        for name in _SIZES:
            require_whole(name, getattr(self, name), 1, LARGEST_SIZE)
        require_whole("num_layers", self.num_layers, 1, LARGEST_COUNT)
        require_whole("intermediate_size", self.intermediate_size, 0 if self.family.experts else 1, LARGEST_SIZE)
        require_whole("max_position_embeddings", self.max_position_embeddings, 1, LARGEST_INT32)
        require_positive("rope_theta", self.rope_theta)
        require_positive("rms_norm_eps", self.rms_norm_eps)
        if self.num_heads % self.num_kv_heads:
            raise UserError(f"num_heads {self.num_heads} is not a multiple of num_kv_heads {self.num_kv_heads}")
        if self.head_dim % 2:
            raise UserError(f"head_dim {self.head_dim} is odd: rotary positions need an even width")
        self._check_experts()
        self._check_windows()

    def _check_experts(self) -> None:
        if not self.family.experts:
            if self.num_experts:
                raise UserError(
                    f"num_experts {self.num_experts} is not supported for model_type {self.model_type!r}: "
                    "give 0, or the type of a mixture of experts"
                )
            return
        require_whole("num_experts", self.num_experts, 1, LARGEST_COUNT)
        require_whole("moe_intermediate_size", self.moe_intermediate_size, 1, LARGEST_SIZE)
        require_whole("num_experts_per_tok", self.num_experts_per_tok, 1, LARGEST_COUNT)
        if self.num_experts_per_tok > self.num_experts:
            raise UserError(
                f"num_experts {self.num_experts} with num_experts_per_tok {self.num_experts_per_tok}: "
                "choose no more than there are"
            )

    def _check_windows(self) -> None:
        windows = {window for window in self.layer_windows if window is not None}
        if self.layer_windows and (len(self.layer_windows) != self.num_layers or len(windows) != 1):
            raise UserError(
                f"layer_windows {self.layer_windows} must be empty, or hold one entry for each of the "
                f"{self.num_layers} layers: None, or the one window of all windowed layers"
            )
        for window in windows:
            require_whole("the window of a layer", window, 1, LARGEST_INT32)

    @property
    def family(self) -> Family:
        """How this model type differs from the others, and how its parts are named. Raises UserError if unknown."""
        return family_of(self.model_type)

    @property
    def qk_norm(self) -> bool:
        """True if every query and key head gets an RMSNorm of its own before the rotation."""
        return self.family.qk_norm

    def window(self, layer: int) -> int | None:
        """How many of the last tokens a layer's attention sees; None: all."""
        return self.layer_windows[layer] if self.layer_windows else None


def require_whole(name: str, value: object, smallest: int, largest: int) -> None:
    """Raise UserError unless ``value`` is a whole number (no bool) within both bounds."""
    if isinstance(value, bool) or not isinstance(value, int) or not smallest <= value <= largest:
        raise UserError(f"{name} {shown(value)} must be a whole number from {smallest} to {largest}")


def require_positive(name: str, value: object) -> None:
    """Raise UserError unless ``value`` is a positive number (no bool) that float32 can hold."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= _LARGEST_FLOAT32:
        raise UserError(f"{name} {shown(value)} must be a finite number above 0")
