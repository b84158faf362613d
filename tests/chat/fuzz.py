"""Random conversations, tools and sampled turns: odd Unicode, tags in texts, malformed calls, odd schemas."""

import json
import random
from collections.abc import Sequence
from typing import Any

from tokenizers import Tokenizer

from trace_jax.contract.trajectory import Message, Tool, ToolCall

MARKS = (
    "<|im_start|>", "<|im_end|>", "<|endoftext|>", "<|end|>", "<|call|>", "<|user|>", "<|assistant|>", "<|pad|>",
    "<think>", "</think>", "<think>\n\n</think>\n\n", "<tool_call>", "</tool_call>", "<tool_call>\n", "\n</tool_call>",
    "<tool_response>", "</tool_response>", "<tools>", "assistant\n", "user\n", "system\n", "\n/", "/", "/refund {}",
    '{"name": "refund", "arguments": {"a": 1}}', '{"name": "', '"arguments": ', "{", "}", "[", "]", '"', "\\", ":", ",",
    "null", "NaN", "1e999", "-", "\\ud83d", "\n", "\n\n", "\t", " ", "  ", "\r\n", "\x00", "\u2028", "\ufeff", "\ufffd",
    "e\u0301", "é", "ß", "İ",
    "漢字", "🙂", "👩‍👩‍👧", "\u202eabc", "{{ x }}", "{% y %}", "</s>", "<s>", "Ġ", "a", "now", "O41",
)  # fmt: skip
SURROGATES = ("\ud83d", "\ude42", "\udfff")
ROLES = ("system", "user", "assistant", "tool")


class Maker:
    """Makes random parts of conversations. Where ``odd`` is set, also what has no token form."""

    def __init__(self, seed: int, odd: bool) -> None:
        self.rng, self.odd = random.Random(seed), odd

    def text(self, most: int = 8) -> str:
        rng, parts = self.rng, []
        for _ in range(rng.randrange(most)):
            kind = rng.random()
            if kind < 0.65:
                parts.append(rng.choice(MARKS))
            elif kind < 0.9:
                parts.append(
                    "".join(chr(rng.choice((rng.randrange(32, 127), rng.randrange(0x3000)))) for _ in range(4))
                )
            elif kind < 0.99 or not self.odd:
                parts.append(chr(rng.choice((rng.randrange(0xE000, 0x110000), rng.randrange(0xD800)))))
            else:
                parts.append(rng.choice(SURROGATES))
        return "".join(parts)

    def value(self, depth: int = 3) -> Any:
        """A JSON value; sometimes one that nests deeply, or no JSON at all."""
        rng = self.rng
        if self.odd and rng.random() < 0.01:
            return self.deep(rng.choice((63, 64, 65, 300, 5000)))
        kind = rng.randrange(8 if depth else 6)
        if kind == 6:
            return [self.value(depth - 1) for _ in range(rng.randrange(4))]
        if kind == 7:
            return self.object(depth - 1)
        number = rng.choice((0, -1, 1.5, 2**63, 2**80, 1e300, float("inf") if self.odd else 0.25))
        return rng.choice((None, True, False, number, self.text(3), rng.choice(MARKS)))

    def object(self, depth: int = 3) -> dict[str, Any]:
        return {self.text(3): self.value(depth) for _ in range(self.rng.randrange(4))}

    def deep(self, depth: int) -> Any:
        value: Any = 1
        for _ in range(depth):
            value = [value] if self.rng.random() < 0.5 else {"a": value}
        return value

    def call(self, number: int) -> ToolCall:
        name = self.rng.choice(("refund", "get_order", self.text(3)))
        if self.rng.random() < 0.6:
            return ToolCall.model_construct(id=f"call_{number}", name=name, arguments=self.object(), raw_arguments=None)
        return ToolCall.model_construct(id=f"call_{number}", name=name, arguments=None, raw_arguments=self.text())

    def message(self, role: str | None = None) -> Message:
        rng = self.rng
        role = role or rng.choice(ROLES)
        content: str | None = self.text()
        if role == "assistant" and rng.random() < 0.3:
            content = f"<think>\n{self.text()}\n</think>\n\n{self.text()}"
        if role != "user" and rng.random() < 0.1:
            content = None
        calls = tuple(self.call(i) for i in range(rng.randrange(3))) if role == "assistant" else ()
        identifier = "call_0" if role == "tool" else None
        return Message.model_construct(role=role, content=content, tool_calls=calls, tool_call_id=identifier, name=None)

    def conversation(self) -> list[Message]:
        return [self.message() for _ in range(self.rng.randrange(1, 6))]

    def tool(self) -> Tool:
        """A tool whose schema is, at times, no JSON Schema."""
        kinds = ({"type": "string"}, {"enum": ["a", 1]}, {"type": "array", "items": {"type": "integer"}}, self.value())
        properties = {self.text(2): self.rng.choice(kinds) for _ in range(self.rng.randrange(3))}
        parameters: dict[str, Any] = {"type": "object", "properties": properties, "required": list(properties)[:1]}
        if self.rng.random() < 0.2:
            parameters = {**parameters, self.rng.choice(("properties", "required", "type", "x")): self.value()}
        return Tool.model_construct(name=self.text(3), description=self.text(), parameters=parameters)

    def tools(self) -> list[Tool]:
        return [self.tool() for _ in range(self.rng.choice((0, 0, 1, 2)))]

    def sampled(self, tokenizer: Tokenizer, stops: Sequence[int]) -> list[int]:
        """A turn as a model might sample it: random tokens, texts with tags, calls well or badly written."""
        rng, ids = self.rng, []
        for _ in range(rng.randrange(1, 8)):
            kind = rng.random()
            if kind < 0.3:
                ids += [rng.randrange(tokenizer.get_vocab_size()) for _ in range(rng.randrange(1, 6))]
            else:
                text = self._call_text() if kind < 0.6 else self.text()
                text = text.encode(errors="replace").decode()
                ids += tokenizer.encode(text, add_special_tokens=False).ids
        ids = [index for index in ids if index not in stops]
        return [*ids, rng.choice(stops)] if rng.random() < 0.7 else ids

    def _call_text(self) -> str:
        rng = self.rng
        written = json.dumps({"name": self.text(2), "arguments": rng.choice((self.object(), self.text(), None))})
        if rng.random() < 0.5 and written:
            at = rng.randrange(len(written))
            written = written[:at] + rng.choice(("", '"', "}", "</tool_call>", "\\")) + written[at + rng.randrange(2) :]
        return rng.choice((f"<tool_call>\n{written}\n</tool_call>", f"<|call|>{written}", f"\n/refund {written}"))
