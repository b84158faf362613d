"""Compares methods. All methods play the same tasks with the same random numbers and are scored in the same way."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256

from evaluation import statistics
from evaluation.episode_counts import effort, error_counts
from trace_jax.contract.evaluation import Comparison, EvaluationReport, MethodResult
from trace_jax.contract.trajectory import Trajectory
from trace_jax.engines.protocol import Sampling
from trace_jax.environments.protocol import Task
from trace_jax.environments.source import Source
from trace_jax.errors import UserError
from trace_jax.rollout.plan import episode_spec
from trace_jax.rollout.spec import EpisodeSpec


@dataclass(frozen=True)
class Method:
    """A way to serve the target: the adapter of each task (None is the base), and the temperature."""

    name: str
    temperature: float
    adapter_for: Callable[[Task], str | None]  # task → adapter that the engine holds; called once a task
    rollouts_spent: int  # rollouts that were used to make the method


@dataclass(frozen=True)
class Evaluation:
    """The report and its episodes. Methods that chose the same adapter for a task share its episodes."""

    report: EvaluationReport
    trajectories: tuple[Trajectory, ...]


Episode = tuple[Task, str | None, float, int]  # task, adapter, temperature, trial
Runner = Callable[[list[EpisodeSpec]], list[Trajectory]]  # keeps their order


def evaluate_methods(
    methods: Sequence[Method],
    source: Source,
    trials: int,
    run: Runner,
    *,
    max_tokens: int,
    seed: int = 0,
    greedy_trials: int = 1,
    baselines: Sequence[str] = (),
) -> Evaluation:
    """Play the tasks of ``source`` × ``trials`` with every method.

    The sampling seed depends on (``seed``, task, trial) alone. These common random numbers reduce the variance of the
    differences between methods. Methods that send a task to the same adapter at the same temperature would play the
    same episode, so it is played once and counts for each of them.

    Args:
        run: plays episodes, or returns recorded ones; keeps their order.
        max_tokens: the most tokens of one turn.
        greedy_trials: trials at temperature 0. One is enough for an engine whose greedy output does not vary.
        baselines: methods with which the others are compared, at the same temperature.

    Raises:
        UserError: there are no tasks, two methods have the same name and temperature, a baseline is unknown, or all
            episodes of a method broke.
    """
    tasks = source.tasks
    _check(methods, tasks, trials, greedy_trials, baselines)
    episodes = plan_episodes(methods, tasks, trials, greedy_trials)
    order = sorted(
        episodes, key=lambda episode: (episode[1] or "", episode[2])
    )  # rows of one adapter run fastest together
    specs = [_spec(episode, source, seed, max_tokens) for episode in order]
    played = dict(zip(order, run(specs), strict=True))
    own: list[list[tuple[Episode, Trajectory]]] = [[] for _ in methods]
    for episode, users in episodes.items():
        for i in users:
            own[i].append((episode, played[episode]))
    results = [_result(method, tasks, pairs) for method, pairs in zip(methods, own, strict=True)]
    report = EvaluationReport(
        target=source.target,
        split=source.split,
        tasks=tuple(str(task) for task in tasks),
        trials=trials,
        seed=seed,
        methods=tuple(results),
        comparisons=compare(results, baselines),
        notes={**_notes(results, greedy_trials, len(specs)), **_version(played.values())},
    )
    return Evaluation(report, tuple(played[episode] for episode in order))


def plan_episodes(
    methods: Sequence[Method], tasks: Sequence[Task], trials: int, greedy_trials: int = 1
) -> dict[Episode, list[int]]:
    """The episodes to play, each with the indices of the methods for which it counts. Trials are in ascending order."""
    episodes: dict[Episode, list[int]] = {}
    for i, method in enumerate(methods):
        for task in tasks:
            adapter = method.adapter_for(task)
            for trial in range(greedy_trials if method.temperature == 0.0 else trials):
                episodes.setdefault((task, adapter, method.temperature, trial), []).append(i)
    return episodes


def method_result(
    name: str,
    temperature: float,
    rollouts_spent: int,
    rewards: Mapping[str, tuple[float | None, ...]],
    episodes: Sequence[Trajectory] = (),
) -> MethodResult:
    """The record of one method. Its intervals are computed from ``rewards[task][trial]``, its counts from ``episodes``.

    Raises UserError, with the name of the method, if every episode broke.
    """
    try:
        return MethodResult(
            method=name,
            temperature=temperature,
            rollouts_spent=rollouts_spent,
            rewards=dict(rewards),
            pass_rate=statistics.pass_rate(rewards),
            mean_reward=statistics.mean_reward(rewards),
            broken=statistics.broken_episodes(rewards),
            pass_at_k=statistics.pass_at_ks(rewards),
            pass_hat_k=statistics.pass_hat_ks(rewards),
            effort=effort(episodes) if episodes else None,
            errors=error_counts(episodes) if episodes else None,
        )
    except UserError as error:
        first = next((f"; the first: {episode.error}" for episode in episodes if episode.error is not None), "")
        raise UserError(f"method {name!r}: {error}{first}") from None


def compare(results: Sequence[MethodResult], baselines: Sequence[str]) -> tuple[Comparison, ...]:
    """Paired differences between the methods and each baseline, at equal temperature; two baselines pair only once."""
    rank = {name: i for i, name in enumerate(baselines)}
    return tuple(
        Comparison(
            method=method.method,
            baseline=baseline.method,
            temperature=method.temperature,
            difference=statistics.paired_difference(method.rewards, baseline.rewards),
        )
        for baseline in results
        if baseline.method in rank
        for method in results
        if method.temperature == baseline.temperature and rank.get(method.method, len(rank)) > rank[baseline.method]
    )


def sampling_seed(seed: int, task: Task, trial: int) -> int:
    """The seed of one episode's sampling, in [0, 2^31): the same for every method."""
    return int.from_bytes(sha256(f"{seed}/{task}/{trial}".encode()).digest()[:4], "big") & 0x7FFFFFFF


def _spec(episode: Episode, source: Source, seed: int, max_tokens: int) -> EpisodeSpec:
    task, adapter, temperature, trial = episode
    return episode_spec(
        source,
        task,
        id=f"evaluation/{source.target}/{source.split}/{task}/{adapter or 'base'}/t{temperature:g}/{trial}",
        trial=trial,
        sampling=Sampling(max_tokens=max_tokens, temperature=temperature, seed=sampling_seed(seed, task, trial)),
        adapter=adapter,
    )


def _result(method: Method, tasks: Sequence[Task], played: Sequence[tuple[Episode, Trajectory]]) -> MethodResult:
    rewards: dict[str, list[float | None]] = {str(task): [] for task in tasks}
    for (task, *_), trajectory in played:
        rewards[str(task)].append(trajectory.reward)
    rows = {task: tuple(row) for task, row in rewards.items()}
    return method_result(
        method.name, method.temperature, method.rollouts_spent, rows, [trajectory for _, trajectory in played]
    )


def _check(
    methods: Sequence[Method], tasks: Sequence[Task], trials: int, greedy: int, baselines: Sequence[str]
) -> None:
    if not methods or not tasks or trials < 1 or greedy < 1:
        raise UserError(
            f"{len(methods)} methods, {len(tasks)} tasks, {trials} trials, {greedy} greedy trials: "
            "an evaluation needs at least one of each"
        )
    if len(set(tasks)) != len(tasks):
        raise UserError("a task is listed twice: list each task once and raise the number of trials instead")
    keys = [(method.name, method.temperature) for method in methods]
    for name, temperature in keys:
        if keys.count((name, temperature)) > 1:
            raise UserError(f"method {name!r} is listed twice at temperature {temperature:g}: rename one of them")
    for baseline in baselines:
        if baseline not in {method.name for method in methods}:
            raise UserError(f"baseline {baseline!r} is not among the methods: add it or drop the comparison")


def _notes(results: Sequence[MethodResult], greedy_trials: int, played: int) -> dict[str, str]:
    notes = {
        "random_numbers": "common to all methods: the sampling seed depends on seed, task and trial alone",
        "episodes": f"{played} played; methods with the same choice share them; {greedy_trials} greedy trial(s) a task",
    }
    for result in results:
        if statistics.broken_too_often(result.rewards):
            episodes = sum(len(row) for row in result.rewards.values())
            notes[f"broken:{result.method}@{result.temperature:g}"] = (
                f"{result.broken} of {episodes} episodes broke, more than {statistics.BROKEN_LIMIT:.0%}: "
                "its figures come from the others, which may be a biased sample"
            )
    return notes


def _version(episodes: Iterable[Trajectory]) -> dict[str, str]:
    """The versions of the target that the episodes name."""
    versions = sorted(
        {str(episode.extra["target_version"]) for episode in episodes if "target_version" in episode.extra}
    )
    return {"target_version": ", ".join(versions)} if versions else {}
