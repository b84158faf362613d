"""Prohibitions in lists, tables, subordinate clauses and imperatives of a written policy.

Each is read as: the action is forbidden on a record that holds one of these values. Forms, with what is read:

1. "Never cancel board meetings.", "Do not close accounts that are frozen." → verb, values
2. "If an account is frozen, it must not be closed / do not close it."      → values, verb
3. "Shipped orders, or orders that are refunded, cannot be cancelled."      → values, verb
4. a heading "You must not cancel:", "These may not be cancelled:" with a list of values below it
5. a table: rows of values, columns of actions, cells yes or no

A sentence with an exception ("unless", "except", "without", "only") or with a number ("more than 3") is ignored: it
would forbid too much.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

_NOT = r"(?:must not|mustn't|may not|cannot|can not|can't|shall not|should not|shouldn't|are not to|is not to)"
_NEVER = re.compile(rf"^(?:you |agents? )?(?:{_NOT}|never|do not|don't|(?:must|should|may) never) (\w+) (.+)$", re.I)
_PASSIVE = re.compile(rf"^(.+?) (?:{_NOT}|(?:must|may|can) never) be (\w+)\b", re.I)
_IF = re.compile(
    r"^(?:if|when|where|whenever) (?:an?|the|its|their|some) ([\w ]{1,40}?) "
    r"(?:is|are|has|have) ([\w ,-]{1,60}?), (.+)$",
    re.I,
)
_HEAD_VERB = re.compile(rf"(?:{_NOT}|never|do not|don't) (\w+)\W*$", re.I)
_HEAD_PASSIVE = re.compile(rf"(?:{_NOT}) be (\w+)\W*$", re.I)
_CLAUSE = re.compile(r"\b(?:that|which|who|whose [\w ]{1,20}?) (?:is|are|has been|have been|was|were) ([\w ,-]+)", re.I)
_EXCEPTION = re.compile(
    r"\b(?:unless|except|without|only|until|before|after|more than|less than|at least|at most|than|exceed\w*)\b", re.I
)
_ITEM = re.compile(r"^\s*(?:[-*+•]|\d+[.)])\s+")
_YES, _NO = frozenset("yes y allowed ok true ✓ ✔ x".split()), frozenset("no n never forbidden false ✗ ✘ – -".split())
_FILLERS = frozenset(
    "a an the any all some every your their its or and of for which that is are already been be".split()
)
_MOST_WORDS = 4  # of the part that holds values; longer parts are prose


@dataclass(frozen=True)
class Prohibition:
    """``verb`` is forbidden on records that hold one of ``values``; a value may be the name of a flag that is set.

    ``noun`` is the kind of record, empty where the text names none.
    """

    verb: str
    values: frozenset[str]
    noun: str
    text: str


def prohibitions(policy: str) -> Iterator[Prohibition]:
    """All that are understood, in the order of the text."""
    lines = policy.splitlines()
    yield from _tables(lines)
    head = ""
    for line in lines:
        item = _ITEM.match(line)
        plain = line[item.end() :] if item else line
        if item and head:
            yield from _listed(head, plain)
        elif line.strip() and not item:
            head = line.strip() if line.rstrip().endswith(":") else ""
        for sentence in re.split(r"(?<=[.!?;])\s+|: (?=[a-z])", plain):
            if not _EXCEPTION.search(sentence):
                yield from _sentence(sentence.strip().rstrip(".!;:"))


def _sentence(sentence: str) -> Iterator[Prohibition]:
    condition = _IF.match(sentence)
    rest = condition.group(3) if condition else sentence
    passive, never = _PASSIVE.match(rest), _NEVER.match(rest)
    if condition and (passive or never):
        verb = passive.group(2) if passive else never.group(1) if never else ""
        noun, values = _last_word(condition.group(1)), _values(condition.group(2))
    elif never:
        verb, (noun, values) = never.group(1), _kinds(never.group(2))
    elif passive and _CLAUSE.search(passive.group(1)):  # "shipped orders cannot be cancelled" is read by ``rules``
        verb, (noun, values) = passive.group(2), _kinds(passive.group(1))
    else:
        return
    if values:
        yield Prohibition(verb.lower(), values, noun, sentence)


def _kinds(part: str) -> tuple[str, frozenset[str]]:
    """The noun and the values in "shipped orders", "accounts that are frozen or closed", "board meetings"."""
    clause = _CLAUSE.search(part)
    if clause:
        return _last_word(part[: clause.start()]), _values(clause.group(1))
    found: set[str] = set()
    noun = ""
    for kind in re.split(r"\bor\b|\band\b|,", part.lower()):
        words = [word for word in re.findall(r"[\w-]+", kind) if word not in _FILLERS]
        if len(words) > _MOST_WORDS:
            return "", frozenset()
        if len(words) >= 2:
            found.add(" ".join(words[:-1]))
            noun = words[-1]
    return noun, frozenset(found)


def _last_word(text: str) -> str:
    words = re.findall(r"[a-z]+", text.lower())
    return words[-1] if words else ""


def _values(part: str) -> frozenset[str]:
    """The values in "frozen", "frozen or closed", "already shipped"."""
    found = set()
    for value in re.split(r"\bor\b|\band\b|,", part.lower()):
        words = [word for word in re.findall(r"[\w-]+", value) if word not in _FILLERS]
        if len(words) > 2:
            return frozenset()
        if words:
            found.add(" ".join(words))
    return frozenset(found)


def _listed(head: str, item: str) -> Iterator[Prohibition]:
    verb = _HEAD_PASSIVE.search(head) or _HEAD_VERB.search(head)
    if verb and not _EXCEPTION.search(item) and not _EXCEPTION.search(head):
        noun, values = _kinds(item.rstrip(" .;,"))
        values = values or _values(item.rstrip(" .;,"))
        if values:
            yield Prohibition(verb.group(1).lower(), values, noun, f"{head} {item.strip()}")


def _tables(lines: list[str]) -> Iterator[Prohibition]:
    """Tables of Markdown whose first column holds values and whose other columns name actions."""
    header: list[str] = []
    for line in lines:
        if line.count("|") < 2:
            header = []
            continue
        cells = [cell.strip().lower() for cell in line.strip().strip("|").split("|")]
        if not header:
            header = cells
        elif len(cells) == len(header) and all(cell in _YES | _NO for cell in cells[1:]):
            for action, cell in zip(header[1:], cells[1:], strict=True):
                if cell in _NO and action:
                    text = f"{header[0]} {cells[0]}: {action} {cell}"
                    yield Prohibition(action.split()[0], frozenset({cells[0]}), "", text)
