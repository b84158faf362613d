"""Names of patterns. A name alone says how a pattern is labelled, and what evidence it rests on."""

import re

from trace_jax.analysis.patterns.joint import ASKED, parts_of

# Prefix or whole name → what the pattern asks of the agent. {rest} is the name without the prefix.
_MEANINGS: dict[str, str] = {
    "look_up_before_changes": "read the record before changing it{rest}",
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
    "meet_check_": "meet what the grader checks under the name of {rest}",
    "meet_checks_of_": "meet all that the grader checks of {rest}",
}
CHECK, GROUP = "meet_check_", "meet_checks_of_"
GENERAL = frozenset(
    "look_up_before_changes ask_before_changes compare_options do_every_part work_out_numbers convert_units".split()
)


def slug(text: str) -> str:
    """A name made of lower-case letters, digits and underscores."""
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", text)
    return re.sub(r"[^a-z0-9]+", "_", spaced.lower()).strip("_")


def is_pattern(name: str) -> bool:
    """True if ``name`` is a pattern of this package."""
    return name.startswith(tuple(_MEANINGS)) or parts_of(name) is not None


def short(name: str) -> str:
    """``name`` as a reader of the report wants it: checks without the words that say that they are checks."""
    return name.replace(CHECK, "").replace(GROUP, "all of ")


def is_check(name: str) -> bool:
    """True if the pattern rests on checks of the grader alone."""
    return name.startswith((CHECK, GROUP)) and parts_of(name) is None


def rank(name: str) -> tuple[int, str]:
    """Which of several patterns that mark the same episodes says most: what to do comes before what not to do."""
    return next((number for number, prefix in enumerate(_MEANINGS) if name.startswith(prefix)), -1), name


def describe(name: str) -> str:
    """What the pattern ``name`` asks of the agent, and what its labels rest on."""
    joint = parts_of(name)
    if joint is None:
        return (
            f"Evidence: {_evidence(name)}. {_meaning(name)}. It applies where the episode gives occasion for it. "
            "LACKING if the episode does not keep to it."
        )
    lapse, check = joint
    if lapse.startswith(ASKED):
        request = f"requests in which the user says {lapse.removeprefix(ASKED)!r}"
        return (
            f"Evidence: messages and the grader's checks. Serve {request}, so that {_checks(check)} are met. It "
            "applies to such requests. LACKING if one of the checks failed."
        )
    return (
        f"Evidence: {_evidence(lapse)}, and the grader's checks. {_meaning(lapse)}, so that {_checks(check)} are met. "
        "LACKING if the episode does not keep to it and one of the checks failed."
    )


def _evidence(name: str) -> str:
    return "the grader's checks" if is_check(name) else "calls, results and messages, a pattern found in the data"


def _checks(name: str) -> str:
    return f"checks of {short(name).replace('_', ' ')}"


def _meaning(name: str) -> str:
    prefix = next((prefix for prefix in _MEANINGS if name.startswith(prefix)), "")
    if not prefix:
        return name.replace("_", " ").capitalize()  # a skill of the library
    rest = name.removeprefix(prefix).strip("_").replace("_", " ")
    meaning = _MEANINGS[prefix].format(rest=f" ({rest})" if rest and not prefix.endswith("_") else rest)
    return meaning[0].upper() + meaning[1:]
