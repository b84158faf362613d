"""A small tokenizer of SmolLM2's make."""

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
VOCABULARY = 400
_SPOKEN = (
    'assistant\n\n\nuser\n\n  please /refund {"order_id":"O41","amount":12}\n\n/get_order {}\ntool\nsystem',
    "please cancel the order 123 and the other order 456\n\n  now, isn't it?",
    "Look an order up before you cancel or refund it: cancel only processing orders, refund only delivered ones.",
)


def small_tokenizer() -> Tokenizer:
    """Byte-level BPE with single digits, ChatML's tokens, and merges across white space."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIALS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_SPOKEN * 9, trainer)
    return tokenizer
