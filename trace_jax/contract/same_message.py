"""When two messages are the same one, sent again."""

import json

from trace_jax.contract.trajectory import Message


def same_text(message: Message) -> str:
    """A text that is equal for equal messages. Clients change ids and names, and whether an empty content is null."""
    calls = [
        [call.name, (call.raw_arguments or "") if call.arguments is None else call.arguments]
        for call in message.tool_calls
    ]
    return json.dumps([message.role, message.content or "", calls], ensure_ascii=False)
