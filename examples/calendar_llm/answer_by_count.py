"""Answer from what was looked up: how many meetings a day has is counted in the result of the tool."""

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
AGENDA: dict[str, str] = {}
ROUTINE = ("book", "move", "cancel", "invite")
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


class AnswerByCount(kit.Exercise[Week]):
    """One request needs the capability, and ``others`` do not. ``meetings`` are in the week."""

    name, state_type = "answer_by_count", Week
    policy = "Keep the calendar. Early is the first free hour. Never cancel board meetings: say why. Tell what you did."

    def __init__(self, others: int = 1, meetings: int = 6, contrast_every: int = 6) -> None:
        self.others, self.meetings, self.contrast_every = others, meetings, contrast_every

    def draw(self, rng: Random) -> kit.Scenario[Week]:
        return self.episode(rng, ["count", *rng.choices(ROUTINE, k=self.others)])

    def draw_routine(self, rng: Random) -> kit.Scenario[Week]:
        return self.episode(rng, rng.choices(ROUTINE, k=1 + self.others))

    def episode(self, rng: Random, kinds: list[str]) -> kit.Scenario[Week]:
        slots = rng.sample([(day, hour) for day in DAYS for hour in range(9, 17)], self.meetings)
        meetings = {f"M{n}": Meeting(rng.choice(WORDS), *slot, board=n < 3) for n, slot in enumerate(slots, start=1)}
        scenario = kit.Scenario(Week(meetings))
        rng.shuffle(kinds)
        agenda = f"To do: {', '.join(AGENDA.get(kind, kind) for kind in kinds)}. "
        for number, kind in enumerate(kinds):
            scenario.add(request(kind, scenario.expected, rng, "" if number else agenda))
        return scenario

    def hint(self) -> str:
        return "List the meetings of the day, count the entries of the result, and say the number."


def request(kind: str, week: Week, rng: Random, agenda: str) -> kit.Request:
    """A request of a kind, with its solution."""
    day, word = rng.choice(DAYS), rng.choice(WORDS)
    key, old = rng.choice([each for each in week.meetings.items() if each[1].board == (kind == "refuse")])
    named = f"{old.day}'s {old.title} meeting at {old.hour}:00"
    hours = [meeting.hour for meeting in week.list_meetings(day).values()]
    free = [hour for hour in range(9, 17) if hour not in hours]
    hour, look = rng.choice(free), call("list_meetings", day=old.day)
    if kind == "count":
        look = call("list_meetings", day=day)
        return kit.Request(f"{agenda}How many meetings are on {day}?", (look,), (str(len(hours)),))
    if kind == "book":
        act = call("book", title=word, day=day, hour=hour)
        return kit.Request(f"{agenda}Book {word} on {day} at {hour}:00.", (call("list_meetings", day=day), act))
    if kind == "move":
        act = call("move", meeting_id=key, day=day, hour=hour)
        return kit.Request(f"{agenda}Move {named} to {day}, {hour}:00.", (look, act))
    if kind == "cancel":
        return kit.Request(f"{agenda}Cancel {named}.", (look, call("cancel", meeting_id=key)))
    person = rng.choice(PEOPLE)
    return kit.Request(f"{agenda}Invite {person} to {named}.", (look, call("invite", meeting_id=key, person=person)))
