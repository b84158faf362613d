"""A small tokenizer of Qwen3's make."""

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

CONTROL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")  # special
TAGS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>")  # ordinary
_SPOKEN = (
    'assistant\nuser\n\n  please {"name": "refund", "arguments": {"order_id": "O41", "amount": 12}}\ntool\nsystem\n',
    "# Tools\n\nYou may call one or more functions to assist with the user query.\n\nYou are provided with function ",
    "signatures within XML tags:\n<tools>\n</tools>\n\nFor each function call, return a json object with function name",
    ">\n\n\n>\n}\n\n.\n\n  \n\n  now, isn't it?\n\n\n \n",
)


def small_tokenizer(size: int = 420) -> Tokenizer:
    """Byte-level BPE with Qwen's pieces, its normalizer, its control tokens and tags, and merges across line ends."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size - len(CONTROL) - len(TAGS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_SPOKEN * 9, trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in CONTROL])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in TAGS])
    return tokenizer
