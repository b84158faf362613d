"""Names of patterns. A name alone says how a pattern is labelled, and what evidence it rests on."""

import re

# Prefix or whole name → what the pattern asks of the agent. {rest} is the name without the prefix.
_MEANINGS: dict[str, str] = {
    "call_": "gather what a change needs before making it: call {rest}",
    "ask_before_": "speak with the user before {rest}",
    "compare_options": "compare the options that a tool lists in place of taking the first{rest}",
    "do_every_part": "do every part of a request that has several{rest}",
    "work_out_numbers": "work numbers out from those that tools and users give{rest}",
    "convert_units": "convert quantities to the unit that a tool takes{rest}",
    "pass_": "give the argument that the change needs: {rest}",
    "follow_up_": "finish what was begun: {rest}",
    "avoid_errors_of_": "make calls of {rest} that the tool accepts",
    "avoid_": "do not call {rest}",
    "meet_check_": "meet the checks of the grader that are named {rest}",
}
CHECK = "meet_check_"
GENERAL = frozenset({"ask_before_changes", "compare_options", "do_every_part", "work_out_numbers", "convert_units"})


def slug(text: str) -> str:
    """A name made of lower-case letters, digits and underscores."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", text)
    return re.sub(r"[^a-z0-9]+", "_", spaced.lower()).strip("_")


def is_pattern(name: str) -> bool:
    """True if ``name`` is a pattern of this package."""
    return name.startswith(tuple(_MEANINGS))


def is_check(name: str) -> bool:
    """True if the pattern rests on checks of the grader."""
    return name.startswith(CHECK)


def rank(name: str) -> tuple[int, str]:
    """Which of several patterns that mark the same episodes says most: what to do comes before what not to do."""
    return next(number for number, prefix in enumerate(_MEANINGS) if name.startswith(prefix)), name


def describe(name: str) -> str:
    """What the pattern ``name`` asks of the agent, and what its labels rest on."""
    prefix = next(prefix for prefix in _MEANINGS if name.startswith(prefix))
    rest = name.removeprefix(prefix).strip("_").replace("_", " ")
    meaning = _MEANINGS[prefix].format(rest=f" ({rest})" if rest and not prefix.endswith("_") else rest)
    if is_check(name):
        return (
            f"Evidence: the grader's checks. {meaning[0].upper()}{meaning[1:]}. It applies where the grader makes them. "
            "LACKING if one of them failed."
        )
    return (
        f"Evidence: calls, results and messages; a pattern found in the data. {meaning[0].upper()}{meaning[1:]}. "
        "It applies where the episode gives occasion for it. LACKING if the episode does not keep to it."
    )
