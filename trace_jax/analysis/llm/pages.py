"""What a request shows of episodes: their pages, their common policy, and how many fit into the model's context."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from re import sub

from trace_jax.analysis.compact import compact
from trace_jax.analysis.policy_page import policy_page
from trace_jax.analysis.settings import AnalysisSettings
from trace_jax.analysis.token_count import Count, bounded_by_bytes, counted_by
from trace_jax.contract.trajectory import Trajectory
from trace_jax.llm.settings import LanguageModelSettings

Episodes = Mapping[str, Trajectory]  # by the label of the page: T1, T2, …

PACKAGE = "trace_jax.analysis.llm"
_ANSWER_SHARE = 4  # an answer may take a quarter of the context, unless llm.max_tokens bounds it
_POLICY_SHARE = 4  # policy and tools may take a quarter of a prompt
_INSTRUCTIONS = 1200  # tokens of a template and of what goes round the pages


@dataclass(frozen=True)
class Pages:
    """Makes pages of at most ``episode_tokens``; the prompts made of them have at most ``prompt_tokens``."""

    count: Count
    episode_tokens: int
    prompt_tokens: int
    most_episodes: int  # of one request for labels
    _made: dict[tuple[int, float], tuple[Trajectory, str]] = field(default_factory=dict)  # by identity: ids may recur

    @property
    def policy_tokens(self) -> int:
        """For policy and tools."""
        return self.prompt_tokens // _POLICY_SHARE

    @property
    def sample_size(self) -> int:
        """Episodes of a request for capabilities; two failed and a passed one at least."""
        return max(3, self._room(0) // self.episode_tokens)

    def policy(self, episodes: Episodes, scale: float) -> str:
        """Policy and tools of ``episodes``, in ``scale`` of the tokens that are meant for them."""
        return policy_page(episodes, int(self.policy_tokens * scale), self.count)

    def pages(self, episodes: Episodes, scale: float) -> list[str]:
        """A page for each episode, in ``scale`` of the tokens that are meant for it."""
        return [f"{title(label, episode)}\n{self._body(episode, scale)}" for label, episode in episodes.items()]

    def batches(self, episodes: Sequence[Trajectory], dictionary_tokens: int) -> Iterator[dict[str, Trajectory]]:
        """``episodes`` in their order, cut into requests that fit. ``dictionary_tokens``: of the dictionary in each."""
        room = self._room(dictionary_tokens)
        batch: list[Trajectory] = []
        used = 0
        for episode in episodes:
            size = self.count(title("T99", episode)) + self.count(self._body(episode, 1.0))
            if batch and (used + size > room or len(batch) == self.most_episodes):
                yield labelled(batch)
                batch, used = [], 0
            batch.append(episode)
            used += size
        if batch:
            yield labelled(batch)

    def _room(self, dictionary_tokens: int) -> int:
        """Tokens for pages in one prompt."""
        taken = self.policy_tokens + _INSTRUCTIONS + dictionary_tokens
        return max(self.episode_tokens, self.prompt_tokens - taken)

    def _body(self, episode: Trajectory, scale: float) -> str:
        key = id(episode), scale
        if key not in self._made:
            page = compact(episode, int(self.episode_tokens * scale), self.count, title="-")
            self._made[key] = episode, page.removeprefix("-\n")
        return self._made[key][1]


def make_pages(analysis: AnalysisSettings, llm: LanguageModelSettings) -> Pages:
    """As the settings say."""
    by_tokenizer = bool(analysis.tokenizer)
    count = counted_by(analysis.tokenizer) if by_tokenizer else bounded_by_bytes(analysis.bytes_per_token)
    answer = llm.max_tokens or llm.context_tokens // _ANSWER_SHARE
    prompt = max(llm.context_tokens // _ANSWER_SHARE, llm.context_tokens - answer)
    return Pages(count, min(analysis.episode_tokens, prompt // 2), prompt, analysis.episodes_per_request)


def labelled(episodes: Sequence[Trajectory]) -> dict[str, Trajectory]:
    """The episodes under the labels of their pages."""
    return {f"T{number}": episode for number, episode in enumerate(episodes, start=1)}


def title(label: str, episode: Trajectory) -> str:
    """The first line of a page: its label, the id for whoever reads the records, and the outcome."""
    outcome = "passed" if episode.passed else "FAILED"
    known = sub(r"[^\w.:#-]", "_", episode.id)[:60]
    return f"{label} ({known}): {outcome}, reward {episode.reward or 0.0:g}, ended by {episode.termination}"
