"""What an analyst and a designer would answer for the calendar, written by hand after reading its agent's episodes.

``LABELS`` has a letter for each of ``CAPABILITIES`` in each episode: N (not needed), P (present), L (lacking).
``EVIDENCE`` names messages of episodes: id, number of the message, and words of it.
"""

from typing import Any

CAPABILITIES = {
    "choose_first_fitting_option": (
        "Needed when a user or the policy asks for the first, earliest or cheapest of several options. It shows when "
        "the agent looks up what there is and takes the one that comes first by that order. It is lacking when the "
        "agent takes another option although it has seen the better one."
    ),
    "refuse_what_policy_forbids": (
        "Needed when a request falls under a prohibition of the policy for the record at hand. It shows when the agent "
        "reads the record, leaves it as it is, and says why. It is lacking when the agent carries the request out."
    ),
    "answer_from_looked_up_data": (
        "Needed when the user asks a question that only records can answer, such as a number of things. It shows when "
        "the agent looks the records up and states the figure that follows from them. It is lacking when the agent "
        "replies without the figure."
    ),
    "act_on_what_was_named": (
        "Needed when the user names a record or values that a call has to have, and there are others to mistake them "
        "for. It shows when the call has the id of that record and exactly those values. It is lacking when the call "
        "is on another record or has another value than the user said."
    ),
}

_MORE = {"parameter": "others", "meaning": "further requests that do not need the capability", "values": [0, 1, 2]}
_CONTRAST = {
    "parameter": "contrast_every",
    "meaning": "one in so many episodes is wholly routine",
    "values": [2, 3, 4, 6, 12],
}
_TOOLS = ["list_meetings", "book", "move", "cancel", "invite"]


def _design(class_name: str, plan: str, others: int, contrast_every: int) -> dict[str, Any]:
    knobs = [_CONTRAST | {"first": contrast_every}, _MORE | {"first": others}]
    return {"plan": plan, "class_name": class_name, "tools": _TOOLS, "knobs": knobs}


MODULES = {  # the module, and what the designer says of it
    "choose_first_fitting_option": (
        "first_option.py",
        _design(
            "FirstOption",
            "A user wants a meeting early on a day. Late hours are free as well and tempt. The grader compares the "
            "week with the one in which the first free hour is booked.",
            0,
            6,
        ),
    ),
    "refuse_what_policy_forbids": (
        "restrictions.py",
        _design(
            "Restrictions",
            "A user wants a board meeting cancelled, which the policy forbids; others may be cancelled. The grader "
            "looks whether the meeting is still there, and whether the reply says that it is a board meeting.",
            0,
            6,
        ),
    ),
    "answer_from_looked_up_data": (
        "answer_by_count.py",
        _design(
            "AnswerByCount",
            "A user asks how many meetings a day has. The agent tends to say that it is done. The grader looks for the "
            "number in the reply.",
            0,
            6,
        ),
    ),
    "act_on_what_was_named": (
        "named_record.py",
        _design(
            "NamedRecord",
            "A user cancels, moves or invites to one of several meetings of a day. The others tempt. The grader "
            "compares the week with the one in which the named meeting was changed.",
            0,
            6,
        ),
    ),
}
_EPISODE = "base_examples.calendar:calendar_train_{}_0"  # its id, as the first line of its page has it
_LABELS = """
    0:LLNP 1:NNNP 2:LNNP 3:NLLP 4:LNNL 5:NLNL
    6:NLNP 7:NNLL 8:LNNL 9:NNNL 10:LLNL 11:LNLP
    12:LLNP 13:LNNP 14:PLNL 15:NLNL 16:LLNP 17:LLNP
    18:NNNL 19:LPNP 20:LPNL 21:NNLL 22:NLNL 23:LNLP
    24:NLNL 25:LNLL 26:NLNL 27:LNNP 28:NLNL 29:NNLP
    30:PNNP 31:NPPP 32:PPNL 33:NPNP 34:LNNL 35:LLNL
    36:LNNP 37:NNLL 38:LNNL 39:LLNP 40:NPNP 41:NNLL
    42:LNNL 43:NNNL 44:NLLL 45:LNNL 46:NNNL 47:PNLP
    48:PLNP 49:LLNL 50:LNNL 51:NPNP 52:NNLL 53:NNLP
    54:NLNL 55:NNLL 56:NNNL 57:LLNL 58:NNNL 59:NNPP
"""  # task of the episode, and a letter for each capability
LABELS = {_EPISODE.format(task): letters for task, letters in (each.split(":") for each in _LABELS.split())}

_EVIDENCE = {
    "choose_first_fitting_option": [
        (23, 10, 'book(title="sales", day="Friday", hour=16)'),
        (13, 4, 'book(title="hiring", day="Monday", hour=16)'),
        (17, 4, 'book(title="launch", day="Thursday", hour=16)'),
        (36, 10, 'book(title="budget", day="Friday", hour=16)'),
        (27, 4, 'book(title="review", day="Monday", hour=16)'),
        (19, 4, 'book(title="standup", day="Monday", hour=16)'),
    ],
    "refuse_what_policy_forbids": [
        (3, 12, 'cancel(meeting_id="M1")'),
        (12, 4, 'cancel(meeting_id="M2")'),
        (16, 10, 'cancel(meeting_id="M2")'),
        (6, 4, 'cancel(meeting_id="M2")'),
        (48, 10, 'cancel(meeting_id="M2")'),
        (39, 10, 'cancel(meeting_id="M1")'),
    ],
    "answer_from_looked_up_data": [
        (53, 8, "Done."),
        (29, 2, "Done."),
        (11, 2, "Done."),
        (47, 14, "Done."),
        (55, 2, "Done."),
        (21, 14, "Done."),
    ],
    "act_on_what_was_named": [
        (7, 4, 'invite(meeting_id="M4", person="Dora")'),
        (25, 4, 'cancel(meeting_id="M5")'),
        (37, 4, 'cancel(meeting_id="M6")'),
        (54, 4, 'move(meeting_id="M5", day="Friday", hour=14)'),
        (58, 10, 'invite(meeting_id="M6", person="Chen")'),
        (8, 4, 'move(meeting_id="M6", day="Wednesday", hour=13)'),
    ],
}
EVIDENCE = {
    name: [(_EPISODE.format(task), message, quote) for task, message, quote in quotes]
    for name, quotes in _EVIDENCE.items()
}
