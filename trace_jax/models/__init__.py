"""The language model: decoder, LoRA adapters, and the weight formats of Hugging Face and PEFT.

Arrays carry their axes at the end of their names (``tokens_BT``). The letters, everywhere in this project:

    A  adapters            G  rollouts of a group    N  query heads
    B  rows of a batch     H  head width             R  LoRA rank
    D  model width         K  key and value heads    T  time: tokens of a row
    E  experts             L  layers                 V  vocabulary
    F  feed-forward width  M  trained tokens

Modules use further letters for axes of their own, and name them: C cache columns, S tokens of a query block or experts
of a token, U tokens of a batch in one axis.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submodules=["formats", "kernels"],
    submod_attrs={
        "buckets": ["bucket"],
        "config": ["DecoderConfig", "Llama3Scaling"],
        "decoder": ["Decoder", "decoder_of", "layer_shapes", "params_of", "pooled"],
        "execution": ["Execution", "execution_for"],
        "families": ["FAMILIES", "Family"],
        "lora": ["TARGETS", "LoRA", "init_lora", "merge", "pad_rank", "select", "stack"],
        "settings": ["BaseModelSettings"],
    },
)
