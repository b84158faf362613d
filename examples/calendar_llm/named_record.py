"""Act on what was named: of several meetings of a day, the user means the one with that title, at that hour."""

from dataclasses import dataclass, field
from random import Random
from typing import Annotated, Literal

from pydantic import Field

from trace_jax.environments import kit
from trace_jax.environments.kit import call

Day = Literal["Monday", "Tuesday", "Wednesday", "Thursday", "Friday"]
Hour = Annotated[int, Field(ge=9, le=16, description="The full hour at which it begins, such as 14")]
DAYS: tuple[Day, ...] = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday")
WORDS = ("budget", "design", "hiring", "launch", "review", "sales", "security", "standup", "strategy", "support")
KINDS = ("cancel", "move", "invite")
PEOPLE = ("Ana", "Ben", "Chen", "Dora", "Emil")


@dataclass
class Meeting:
    title: str
    day: Day
    hour: int
    board: bool = False
    guests: list[str] = field(default_factory=list)


@dataclass
class Week:
    meetings: dict[str, Meeting]

    @kit.tool
    def list_meetings(self, day: Day) -> dict[str, Meeting]:
        """List the meetings of a day by id."""
        return {key: meeting for key, meeting in self.meetings.items() if meeting.day == day}

    @kit.tool
    def book(self, title: str, day: Day, hour: Hour) -> str:
        """Book a new meeting of one hour. Returns its id."""
        key = f"M{1 + max((int(each[1:]) for each in self.meetings), default=0)}"
        self.meetings[key] = Meeting(title, *self.free(day, hour))
        return key

    @kit.tool
    def move(self, meeting_id: str, day: Day, hour: Hour) -> None:
        """Move a meeting to another day or hour."""
        meeting = kit.look_up(self.meetings, meeting_id, "meeting")
        meeting.day, meeting.hour = self.free(day, hour)

    @kit.tool
    def cancel(self, meeting_id: str) -> Meeting:
        """Cancel a meeting."""
        kit.look_up(self.meetings, meeting_id, "meeting")
        return self.meetings.pop(meeting_id)

    @kit.tool
    def invite(self, meeting_id: str, person: str) -> None:
        """Invite a person to a meeting."""
        kit.look_up(self.meetings, meeting_id, "meeting").guests.append(person)

    def free(self, day: Day, hour: int) -> tuple[Day, int]:
        if hour in (meeting.hour for meeting in self.list_meetings(day).values()):
            raise kit.ToolError(f"{day} {hour}:00 is taken")
        return day, hour


class NamedRecord(kit.Exercise[Week]):
    """One request needs the capability, and ``others`` do not. ``meetings`` are in the week."""

    name, state_type = "named_record", Week
    policy = "Keep the calendar. Early is the first free hour. Never cancel board meetings: say why. Tell what you did."

    def __init__(self, others: int = 1, meetings: int = 6, contrast_every: int = 6) -> None:
        self.others, self.meetings, self.contrast_every = others, meetings, contrast_every

    def draw(self, rng: Random) -> kit.Scenario[Week]:
        return self.episode(rng, [(rng.choice(KINDS), True), *[self.other(rng) for _ in range(self.others)]])

    def draw_routine(self, rng: Random) -> kit.Scenario[Week]:
        return self.episode(rng, [self.other(rng) for _ in range(1 + self.others)])

    def other(self, rng: Random) -> tuple[str, bool]:
        """A request that needs no choice among meetings."""
        return rng.choice([("book", False), (rng.choice(KINDS), False)])

    def episode(self, rng: Random, kinds: list[tuple[str, bool]]) -> kit.Scenario[Week]:
        slots = rng.sample([(day, hour) for day in DAYS for hour in range(9, 17)], self.meetings)
        meetings = {f"M{n}": Meeting(rng.choice(WORDS), *slot, board=n < 3) for n, slot in enumerate(slots, start=1)}
        scenario = kit.Scenario(Week(meetings))
        rng.shuffle(kinds)
        agenda = f"To do: {', '.join(kind for kind, _ in kinds)}. "
        for number, (kind, several) in enumerate(kinds):
            scenario.add(request(kind, several, scenario.expected, rng, "" if number else agenda))
        return scenario

    def hint(self) -> str:
        return "Find the entry whose title and hour are those that the user names, and use its id, not another one."


def request(kind: str, several: bool, week: Week, rng: Random, agenda: str) -> kit.Request:
    """A request of a kind, with its solution. ``several`` meetings are on the day of the one that is named, or one."""
    day, word, person = rng.choice(DAYS), rng.choice(WORDS), rng.choice(PEOPLE)
    taken = [meeting.hour for meeting in week.list_meetings(day).values()]
    hour = rng.choice([hour for hour in range(9, 17) if hour not in taken])
    if kind == "book":
        act = call("book", title=word, day=day, hour=hour)
        return kit.Request(f"{agenda}Book {word} on {day} at {hour}:00.", (call("list_meetings", day=day), act))
    open_to = {key: each for key, each in week.meetings.items() if not each.board}
    fitting = [key for key, each in open_to.items() if (len(week.list_meetings(each.day)) > 1) == several]
    key = rng.choice(fitting or list(open_to))
    old = week.meetings[key]
    named, look = f"{old.day}'s {old.title} meeting at {old.hour}:00", call("list_meetings", day=old.day)
    if kind == "cancel":
        return kit.Request(f"{agenda}Cancel {named}.", (look, call("cancel", meeting_id=key)))
    if kind == "move":
        act = call("move", meeting_id=key, day=day, hour=hour)
        return kit.Request(f"{agenda}Move {named} to {day}, {hour}:00.", (look, act))
    return kit.Request(f"{agenda}Invite {person} to {named}.", (look, call("invite", meeting_id=key, person=person)))
