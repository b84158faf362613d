"""Claims: a stranger adds a thing of each kind by installing a package; parameters are checked; errors are one line."""

import asyncio
import json
from dataclasses import dataclass
from pathlib import Path

import pytest
from etils import epath

from trace_jax.analysis.analyst import ANALYSTS, make_analyst
from trace_jax.analysis.importers.registry import IMPORTERS, read_with
from trace_jax.analysis.settings import SourceSettings
from trace_jax.contract.environment import Design
from trace_jax.contract.files import write_document
from trace_jax.contract.routing import Route, RouteTable
from trace_jax.contract.trajectory import Message
from trace_jax.environments.registry import ENVIRONMENTS, TARGETS, environment_factory, is_environment, load_target
from trace_jax.environments.settings import TargetSettings
from trace_jax.environments.source import load_source
from trace_jax.errors import UserError
from trace_jax.llm.settings import LanguageModelSettings
from trace_jax.registry import Registry
from trace_jax.routing.load import ROUTERS, load_router
from trace_jax.routing.select import Best
from trace_jax.synthesis.designers import DESIGNERS, make_designer
from trace_jax.synthesis.settings import SynthesisSettings

PACKAGE = '''
from collections.abc import Sequence

from examples.calendar import Calendar
from trace_jax.analysis.rules_analyst import RulesAnalyst
from trace_jax.analysis.settings import SourceSettings
from trace_jax.contract.routing import RouteDecision
from trace_jax.contract.trajectory import Message, Policy, Trajectory
from trace_jax.environments import kit
from trace_jax.routing.load import TableOnDisk
from trace_jax.routing.router import SingleDecision
from trace_jax.synthesis.rules import RulesDesigner


def diary(train: int = 5, days: tuple[str, ...] = ("Monday",)) -> kit.Target:
    assert isinstance(days, tuple)
    return kit.Target(Calendar, train=train, held_out=7)


def episode() -> Calendar:
    return Calendar()


class Analyst(RulesAnalyst):
    name = "strange"


class Designer(RulesDesigner):
    name = "strange"


def lines(source: SourceSettings) -> list[Trajectory]:
    said = [Message(role="user", content=line) for line in open(source.path)]
    policy = Policy(base=source.model)
    made = dict(target="t", split="train", seed=0, trial=0, policy=policy, reward=1.0, termination="done")
    return [Trajectory(id=str(n), task=str(n), messages=(message,), **made) for n, message in enumerate(said)]


def no_trajectories(source: SourceSettings) -> list[str]:
    return ["a"]


class Last(SingleDecision):
    """Sends every conversation to the last adapter of the table."""

    kind = "last"

    def __init__(self, given: TableOnDisk) -> None:
        self.table = given.table

    def decide_batch(self, requests):
        name = self.table.routes[-1].adapter
        return [
            RouteDecision(conversation=r.conversation, router=self.kind, weights={name: 1.0}, adapters={name: 1.0})
            for r in requests
        ]
'''
POINTS = {
    TARGETS: "diary",
    ENVIRONMENTS: "episode",
    ANALYSTS: "Analyst",
    DESIGNERS: "Designer",
    IMPORTERS: "lines",
    ROUTERS: "Last",
}


def entry(registry: Registry) -> str:
    """The name of the entry point. An environment must not be called as a target is, which would come first."""
    return "strange_episode" if registry is ENVIRONMENTS else "strange"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package with an entry point of each kind, as an installer lays it out."""
    site = tmp_path / "site"
    info = site / "strangers-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "strangers.py").write_text(PACKAGE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: strangers\nVersion: 1.0\n")
    points = [f"[{registry.group}]\n{entry(registry)} = strangers:{name}\n" for registry, name in POINTS.items()]
    (info / "entry_points.txt").write_text("\n".join(points))
    monkeypatch.syspath_prepend(str(site))
    return tmp_path


@pytest.mark.parametrize("registry", POINTS, ids=lambda registry: registry.kind)
def test_every_kind_knows_what_is_installed_and_says_what_it_knows(installed, registry: Registry):
    assert entry(registry) in registry.names() and set(registry.built_in) <= set(registry.names())
    assert registry.find(entry(registry)) is registry.find(f"strangers:{POINTS[registry]}")
    known = ", ".join(registry.names())
    with pytest.raises(UserError) as caught:
        registry.find("nothing")
    assert str(caught.value) == f"no {registry.kind} 'nothing': known are {known}; or give module:NAME"


def opening(source, task):
    """What a new episode of ``source`` begins with."""

    async def opened():
        return (await (await source.host.open()).reset(task)).messages

    return asyncio.run(opened())


@pytest.mark.parametrize("by_path", [False, True])
def test_each_is_used_like_a_built_in_one(installed, by_path):
    def name(registry: Registry) -> str:
        return f"strangers:{POINTS[registry]}" if by_path else entry(registry)

    target = load_target(name(TARGETS), {"train": 3, "days": ["Friday"]})
    assert len(target.tasks("train")) == 3 and len(target.tasks("held_out")) == 7
    source = load_source(name(TARGETS), "train", 9, TargetSettings(parameters='{"train": 2}'))
    assert source.tasks == (0, 1) and opening(source, 0)
    assert is_environment(name(ENVIRONMENTS)) and not is_environment(name(TARGETS))
    assert opening(load_source(name(ENVIRONMENTS), "train", 2), "a")
    designing = SynthesisSettings(designer=name(DESIGNERS))
    designer = make_designer(designing, llm=LanguageModelSettings(), record=None, seed=0)
    assert make_analyst(name(ANALYSTS)).name == designer.name == "strange"
    (installed / "log.txt").write_text("hello\nagain\n")
    read = read_with(SourceSettings(format=name(IMPORTERS), path=str(installed / "log.txt"), model="m"))
    assert [episode.messages[0].content for episode in read] == ["hello\n", "again\n"] and read[0].policy.base == "m"
    path, table = epath.Path(installed / "table.json"), route_table(name(ROUTERS))
    write_document(path, table)
    router = load_router(path, "b", None, None, Best(), configured=name(ROUTERS))  # type: ignore[arg-type]
    assert router.decide("c", (Message(role="user", content="x"),)).adapters == {"second": 1.0}


def route_table(router: str) -> RouteTable:
    routes = tuple(Route(adapter=name, capability=name, description=name) for name in ("first", "second"))
    return RouteTable(base="b", router=router, routes=routes)


def test_a_design_may_use_an_installed_environment_by_name_alone(installed):
    assert environment_factory(Design(entry_point="strange_episode", parameters={}))().reset(1).messages
    for path in ("strangers:episode", "trace_jax.contract.files:write_document"):
        with pytest.raises(UserError, match="lies outside trace_jax|is a function: a design may name a class"):
            environment_factory(Design(entry_point=path, parameters={}))


def test_a_table_cannot_make_a_module_run(tmp_path, monkeypatch):
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\nclass Router: pass\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    path = epath.Path(tmp_path / "table.json")
    write_document(path, route_table("evil:Router"))
    for configured in (None, "gate"):
        with pytest.raises(UserError, match="is code to import: set routing.router to it if you trust it"):
            load_router(path, "b", None, None, Best(), configured=configured)  # type: ignore[arg-type]
    assert not (tmp_path / "ran").exists()
    write_document(path, route_table("oracle"))
    with pytest.raises(UserError, match=r"table.json: no router 'oracle': known are .*gate"):
        load_router(path, "b", None, None, Best())  # type: ignore[arg-type]


def test_an_importer_returns_trajectories(installed):
    with pytest.raises(UserError, match="importer 'strangers:no_trajectories': it returned a str"):
        read_with(SourceSettings(format="strangers:no_trajectories", path="x"))


@dataclass
class Point:
    x: int


class Opaque:
    pass


class Thing:
    def __init__(self, size: int = 1, names: tuple[str, ...] = (), at: Point | None = None, raw: Opaque | None = None):
        self.given = (size, names, at)


def untyped(size=1, later: "Missing" = 2):  # type: ignore[name-defined]  # noqa: F821
    return size, later


THINGS = Registry("thing", "trace_jax.nothing", {"thing": f"{__name__}:Thing", "untyped": f"{__name__}:untyped"})


def test_parameters_become_what_the_signature_says():
    assert THINGS.make("thing", {"size": 2, "names": ["a"], "at": {"x": 3}}).given == (2, ("a",), Point(3))
    assert THINGS.make("untyped", {"size": "any", "later": 1}) == ("any", 1)
    make = THINGS.factory("thing")
    assert make() is not make()


@pytest.mark.parametrize(
    ("name", "parameters", "words"),
    [
        (
            "thing",
            {"colour": 1},
            "thing 'thing': got an unexpected keyword argument 'colour': its parameters are (",
        ),
        ("thing", {"size": "2"}, "thing 'thing': its parameter size is '2': it should be a valid integer"),
        ("thing", {"size": True}, "its parameter size is True: it should be a valid integer"),
        ("thing", {"names": "abc"}, "its parameter names is 'abc': it should be a valid array"),
        ("thing", {"at": {"x": 1.5}}, "its parameter at is {'x': 1.5}: it should be a valid integer"),
        ("untyped", {"color": 1}, "got an unexpected keyword argument 'color'"),
        ("nothing", {}, "no thing 'nothing': known are thing, untyped; or give module:NAME"),
        (f"{__name__}:POINTS", {}, "has no class or function 'POINTS'"),
        (f"{__name__}:nothing", {}, "has no class or function 'nothing'"),
        ("no_such_module:X", {}, "cannot import 'no_such_module'"),
        (":X", {}, "':X'"),
        ("builtins:dict", {}, "its parameters cannot be told: wrap it in a function"),
    ],
)
def test_what_cannot_be_made_is_named_with_the_remedy(name, parameters, words):
    with pytest.raises(UserError) as caught:
        THINGS.make(name, parameters)
    assert words in str(caught.value) and "\n" not in str(caught.value), json.dumps(str(caught.value))
