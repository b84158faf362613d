"""The classifier's weights against an unbatched, unpadded forward pass and torch's softmax."""

import jax.numpy as jnp
import numpy as np
import pytest
import torch
from flax import nnx
from qwen3_tokenizer import small_tokenizer

from trace_jax.chat.qwen3 import Qwen3Renderer
from trace_jax.contract.files import write_document
from trace_jax.contract.trajectory import Message
from trace_jax.errors import UserError
from trace_jax.routing.classifier import ClassifierRouter, label_tokens
from trace_jax.routing.features import PromptReader
from trace_jax.routing.load import load_router
from trace_jax.routing.router import RouteRequest
from trace_jax.routing.select import Best, choices
from trace_jax.routing.table import build_table


@pytest.fixture
def table(manifest, base):
    adapters = [manifest("look-1", "look"), manifest("finish-1", "finish")]
    return build_table(base, "classifier", adapters, {"look": "Look first.", "finish": "Do all."}, temperature=0.1)


def ask(text):
    return (Message(role="system", content="policy"), Message(role="user", content=text))


def hidden_of(decoder, prompt):
    return _hidden(decoder, jnp.asarray([prompt], jnp.int32))[0]


@nnx.jit
def _hidden(decoder, tokens):
    ones = jnp.ones_like(tokens)
    return decoder(tokens, jnp.arange(tokens.shape[1])[None], ones, 0 * ones)


def test_features_equal_one_prompt_at_a_time(decoder, reader):
    rng = np.random.default_rng(0)
    lengths = [1, 32, 33] * 6  # both sides of a bucket's edge, more than one batch, not in order
    prompts = [tuple(rng.integers(0, 320, size=n).tolist()) for n in lengths]
    features = reader.pooled(prompts)
    for prompt, (mean, last) in zip(prompts, features, strict=True):
        hidden = np.asarray(hidden_of(decoder, prompt))
        np.testing.assert_allclose(mean, hidden.mean(axis=0), atol=2e-5)
        np.testing.assert_allclose(last, hidden[-1], atol=2e-5)


def test_weights_are_the_labels_next_token_probabilities(decoder, reader, renderer, table, config):
    wide = PromptReader(decoder, max_tokens=2048)
    router = ClassifierRouter(table, wide, renderer)
    texts = ["cancel my order", "refund the price of the lamp please", "hello"]
    for text, decision in zip(texts, router.decide_batch([RouteRequest(t, ask(t)) for t in texts]), strict=True):
        prompt = router._prompt(RouteRequest(text, ask(text)))
        head = torch.tensor(np.asarray(decoder.head_VD()))
        logits = torch.tensor(np.asarray(hidden_of(decoder, prompt)[-1])) @ head.T
        letters = [renderer._codec._tokenizer.token_to_id(letter) for letter in "CAB"]  # the base has the last label
        expected = torch.softmax(torch.log_softmax(logits.double(), -1)[letters] / 0.1, -1)
        np.testing.assert_allclose([decision.weights[name] for name in choices(table)], expected, atol=1e-4)
        assert not decision.undecided


class Asked:
    """A reader that keeps the prompts."""

    def __init__(self):
        self.prompts = []

    def check_length(self, prompt):
        pass

    def next_logprobs(self, prompts, token_ids):
        self.prompts += prompts
        return np.zeros((len(prompts), len(token_ids)), np.float32)


def test_a_model_that_would_think_first_is_asked_with_thinking_off(table, renderer):
    tokenizer = small_tokenizer()

    def asked(given):
        reader = Asked()
        ClassifierRouter(table, reader, given).decide("x", ask("cancel my order"))
        (prompt,) = reader.prompts
        return prompt

    prompts = {form: asked(Qwen3Renderer(tokenizer, form)) for form in ("thinking", "no_thinking", "instruct")}
    ends = {form: tokenizer.decode(prompt[-12:], skip_special_tokens=False) for form, prompt in prompts.items()}
    assert prompts["thinking"] == prompts["no_thinking"]
    assert ends["thinking"].endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert ends["instruct"].endswith("<|im_start|>assistant\n")
    assert asked(renderer)[-1] == renderer.prompt(ask("cancel my order"), ())[-1]  # no thinking, nothing to switch off


def test_labels_must_be_single_tokens_and_differ(renderer):
    assert len(label_tokens(renderer, "ABC")) == 3
    with pytest.raises(UserError, match="label 'ZQ' is 2 tokens"):
        label_tokens(renderer, ["A", "ZQ"])
    with pytest.raises(UserError, match="labels 'A' and 'A' are the same token"):
        label_tokens(renderer, ["A", "A"])


def test_what_cannot_be_classified_goes_to_the_base_and_the_rest_is_decided(reader, renderer, table, decoder):
    router = ClassifierRouter(table, PromptReader(decoder, max_tokens=2048), renderer)
    silent = (Message(role="system", content="policy"),)
    long, good = ask("order " * 2000), ask("cancel")
    found = router.decide_batch([RouteRequest("s", silent), RouteRequest("l", long), RouteRequest("g", good)])
    assert [d.undecided for d in found] == [True, True, False]
    assert found[0].reason == "prompt refused: no user message to classify"
    assert found[1].reason.startswith("prompt refused: prompt of ")
    assert router.decide("g", good) == found[2]


def test_a_table_of_another_base_is_refused_whatever_its_router(table, base, reader, renderer, tmp_path):
    write_document(tmp_path / "route_table.json", table)
    router = load_router(tmp_path / "route_table.json", base, reader, renderer, Best())
    assert (router.kind, router.table) == ("classifier", table)
    with pytest.raises(UserError, match="route table is for base 0123456789abcdef, the model is other"):
        load_router(tmp_path / "route_table.json", "other", reader, renderer, Best())
