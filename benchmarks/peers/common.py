"""The common parts of the measured systems: shapes, prompts, reward, clock.

The module needs only the standard library, because every system runs in a virtual environment of its own.
"""

import argparse
import json
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

LAYERS, WIDTH, FEED_FORWARD, HEADS, KV_HEADS, HEAD_WIDTH = 4, 256, 768, 8, 4, 32
RANK, TARGETS, LORA_PARAMETERS = 16, ("q_proj", "k_proj", "v_proj", "o_proj"), 114_688
GROUP, LEARNING_RATE, CLIP, MAX_GRAD_NORM = 8, 1e-4, 0.2, 1.0
PAD, BOS, EOS, UNKNOWN = range(4)
WARMUP = 3  # steps before the measured ones; the first step compiles


@dataclass(frozen=True)
class Shape:
    """Sizes of a step in tokens: one prompt, ``GROUP`` completions of equal length."""

    vocab: int
    prompt: int
    completion: int


SHAPES = {"A": Shape(2048, 64, 64), "B": Shape(32768, 64, 64), "C": Shape(2048, 256, 128)}


def arguments() -> argparse.Namespace:
    """Flags of a system's script: ``shape`` and the number of ``steps``, of which the first ``WARMUP`` do not count."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--shape", choices=SHAPES, required=True)
    parser.add_argument("--steps", type=int, default=12)
    return parser.parse_args()


def vocabulary(size: int) -> dict[str, int]:
    """Word → id. Word i is "w<i>"; the first four ids are special."""
    return {"<pad>": PAD, "<bos>": BOS, "<eos>": EOS, "<unk>": UNKNOWN} | {f"w{i}": i for i in range(4, size)}


def prompt(number: int, words: int, vocab: int) -> str:
    """The words of prompt ``number``."""
    return " ".join(f"w{4 + (number * 7919 + i * 104729) % (vocab - 4)}" for i in range(words))


def reward(completion: str, length: int) -> float:
    """The share of odd words in a completion of ``length`` words."""
    return sum(int(word[1:]) % 2 for word in completion.split() if word.startswith("w")) / length


def fast_tokenizer(size: int) -> Any:
    """The word-level tokenizer as ``transformers`` wants it (for the peers)."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel(vocabulary(size), unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", unk_token="<unk>",
        padding_side="left",
    )  # fmt: skip
    fast.chat_template = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
    return fast


class Clock:
    """CPU seconds of this process, for whole steps (from mark to mark) and for named parts of them."""

    def __init__(self) -> None:
        self.marks: list[float] = []
        self.parts: dict[str, list[float]] = {}

    def mark(self) -> None:
        """A step ends here and the next begins."""
        self.marks.append(time.process_time())

    def timed(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """``function``, wrapped so that its seconds count as ``part``."""

        def call(*arguments: Any, **named: Any) -> Any:
            started = time.process_time()
            result = function(*arguments, **named)
            self.parts.setdefault(part, []).append(time.process_time() - started)
            return result

        return call

    def report(self, system: str, lengths: Sequence[float], lora_parameters: int) -> None:
        """Print the run as one JSON line.

        ``lengths`` are the mean tokens of each step's completions. ``lengths`` and ``lora_parameters`` let the reader
        check that all systems did the same work.
        """
        seconds = [after - before for before, after in zip(self.marks[:-1], self.marks[1:], strict=True)]
        line = {
            "system": system,
            "cpu_seconds": seconds[WARMUP:],
            "first_step_seconds": seconds[0],
            "parts": {name: statistics.median(values[WARMUP:]) for name, values in self.parts.items()},
            "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            "completion_tokens": statistics.mean(lengths),
            "lora_parameters": lora_parameters,
        }
        print(json.dumps(line), flush=True)
