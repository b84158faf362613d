"""A client for language models behind OpenAI-compatible endpoints: one request in, one answer out, what it cost.

``LanguageModel`` returns texts. ``StructuredModel`` returns values of pydantic models, keeps all calls on file, replays
them, and stops before a budget is exceeded.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "accounting": ["StageUsage", "usage_as_json", "usage_table"],
        "answer": ["Answer", "FunctionCall", "TokenUsage"],
        "blocking": ["BlockingLanguageModel"],
        "check": ["check_model"],
        "errors": [
            "AnswerRefused",
            "BudgetSpent",
            "EndpointRefused",
            "EndpointUnreachable",
            "LLMError",
            "NotRecorded",
            "PromptTooLong",
        ],
        "model": ["LanguageModel"],
        "prompts": ["Prompt", "print_prompts", "prompt"],
        "settings": ["LanguageModelSettings"],
        "spending": ["Spending"],
        "structured": ["StructuredModel"],
    },
)
