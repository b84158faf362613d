"""A calendar assistant, made with the kit: python -m launch.check_target --target=examples.calendar:calendar."""

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
KINDS = ("book", "first_free", "move", "cancel", "refuse_board", "invite", "count")
ASKED = {"first_free": "book early", "refuse_board": "cancel"}  # in the user's words, where these are not the kind


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

    @kit.tool(reads=("meetings",))
    def list_meetings(self, day: Day) -> dict[str, Meeting]:
        """List the meetings of a day by id."""
        return {key: meeting for key, meeting in self.meetings.items() if meeting.day == day}

    @kit.tool(writes=("meetings",))
    def book(self, title: str, day: Day, hour: Hour) -> str:
        """Book a new meeting of one hour. Returns its id."""
        meeting_id = f"M{1 + max((int(key[1:]) for key in self.meetings), default=0)}"
        self.meetings[meeting_id] = Meeting(title, *self.free_slot(day, hour))
        return meeting_id

    @kit.tool(writes=("meetings",))
    def move(self, meeting_id: str, day: Day, hour: Hour) -> None:
        """Move a meeting to another day or hour."""
        meeting = kit.look_up(self.meetings, meeting_id, "meeting")
        meeting.day, meeting.hour = self.free_slot(day, hour)

    @kit.tool(writes=("meetings",))
    def cancel(self, meeting_id: str) -> Meeting:
        """Cancel a meeting."""
        kit.look_up(self.meetings, meeting_id, "meeting")
        return self.meetings.pop(meeting_id)

    @kit.tool(writes=("meetings",))
    def invite(self, meeting_id: str, person: str) -> None:
        """Invite a person to a meeting."""
        kit.look_up(self.meetings, meeting_id, "meeting").guests.append(person)

    def free_slot(self, day: Day, hour: int) -> tuple[Day, int]:
        if hour in (meeting.hour for meeting in self.list_meetings(day).values()):
            raise kit.ToolError(f"{day} {hour}:00 is taken")
        return day, hour


class Calendar(kit.Environment[Week]):
    name, state_type = "calendar", Week
    policy = "Keep the calendar. Early is the first free hour. Never cancel board meetings: say why. Tell what you did."

    def draw(self, rng: Random) -> kit.Scenario[Week]:
        slots = rng.sample([(day, hour) for day in DAYS for hour in range(9, 17)], 6)
        meetings = {f"M{n}": Meeting(rng.choice(WORDS), *slot, board=n < 3) for n, slot in enumerate(slots, start=1)}
        scenario = kit.Scenario(Week(meetings))
        kinds = self.kinds or rng.sample(KINDS, 3)
        agenda = f"To do: {', '.join(ASKED.get(kind, kind) for kind in kinds)}. "
        for number, kind in enumerate(kinds):
            scenario.add(request(kind, scenario.expected, rng, "" if number else agenda))
        return scenario


def request(kind: str, week: Week, rng: Random, agenda: str = "") -> kit.Request:
    word, day, person = rng.choice(WORDS), rng.choice(DAYS), rng.choice(("Ana", "Ben", "Chen", "Dora", "Emil"))
    hours = [meeting.hour for meeting in week.list_meetings(day).values()]
    hour = rng.choice(free := [hour for hour in range(9, 17) if hour not in hours])
    key, old = rng.choice([each for each in week.meetings.items() if each[1].board == (kind == "refuse_board")])
    named = f"{old.day}'s {old.title} meeting at {old.hour}:00"
    looked_up, text, acts = {
        "book": (day, f"Book {word} on {day} at {hour}:00.", [call("book", title=word, day=day, hour=hour)]),
        "first_free": (day, f"Book {word} early on {day}.", [call("book", title=word, day=day, hour=free[0])]),
        "move": (old.day, f"Move {named} to {day}, {hour}:00.", [call("move", meeting_id=key, day=day, hour=hour)]),
        "cancel": (old.day, f"Cancel {named}.", [call("cancel", meeting_id=key)]),
        "refuse_board": (old.day, f"Cancel {named}.", []),
        "invite": (old.day, f"Invite {person} to {named}.", [call("invite", meeting_id=key, person=person)]),
        "count": (day, f"How many meetings are on {day}?", []),
    }[kind]
    must_say = {"refuse_board": ("board",), "count": (str(len(hours)),)}.get(kind, ())
    seen = call("list_meetings", day=looked_up)
    late, cancelled = call("book", title=word, day=day, hour=free[-1]), call("cancel", meeting_id=key)
    wrong = {"first_free": (seen, late, "Done."), "refuse_board": (seen, cancelled, "Done."), "count": ("Done.",)}
    return kit.Request(agenda + text, (seen, *acts), must_say, kind, wrong.get(kind, ()))


def calendar(train: int = 60, held_out: int = 60) -> kit.PracticeTarget:
    return kit.PracticeTarget(Calendar, train=train, held_out=held_out, kinds=KINDS)
