"""Messages that hypothesis draws, from the texts and calls that a renderer's structure makes difficult."""

from hypothesis import strategies as st

from trace_jax.contract.trajectory import Message, ToolCall


def turns_of(contents: st.SearchStrategy, calls: st.SearchStrategy) -> st.SearchStrategy:
    """Assistant messages. ``calls`` draws a tool's name, its arguments or None, and else how they were written."""
    return st.builds(
        lambda content, calls: Message(
            role="assistant",
            content=content or None,
            tool_calls=tuple(
                ToolCall(id=f"call_{i}", name=name, arguments=read, raw_arguments=raw)
                for i, (name, read, raw) in enumerate(calls)
            ),
        ),
        contents,
        st.lists(calls, max_size=3),
    )


def others_of(contents: st.SearchStrategy) -> st.SearchStrategy:
    """Up to three messages that are not the assistant's."""
    roles = st.sampled_from(["tool", "user", "system"])
    return st.lists(st.builds(lambda role, content: Message(role=role, content=content), roles, contents), max_size=3)
