"""Prohibitions in a written policy, as far as plain patterns can read them.

These forms are understood. Anything else in a policy is ignored, so a detector finds less, never more:

1. "Cancel only orders that are processing.", "refund only delivered orders" → the action needs one of these statuses
2. "Basic economy flights cannot be modified."         → the action is forbidden where a record holds that value
3. "... flights can be cancelled only if travel insurance is bought"  → the action needs that flag on the record
4. "... can be cancelled within 24 hours of booking"   → rules 2 and 3 do not hold inside that time

Lists, tables, subordinate clauses and imperatives are read by ``prohibitions``.
"""

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from trace_jax.analysis.prohibitions import Prohibition, prohibitions
from trace_jax.analysis.tool_names import name_words
from trace_jax.analysis.values import argument_ids, leaves, records, same_object, stem, words

_SYNONYMS = (
    {"modif", "chang", "updat", "edit"},
    {"cancel"},
    {"refund"},
    {"return"},
    {"exchang"},
    {"book", "order", "plac"},
)
_ONLY_THAT_ARE = re.compile(
    r"\b(\w+) only (?:[\w' -]{1,80}? )?(?:that|which|who) (?:are|is) ([\w ,/-]+)", re.IGNORECASE
)
_ONLY_SUCH = re.compile(r"\b(\w+) only (\w+(?:(?:,| or| and) \w+)*) \w+s\b", re.IGNORECASE)
_CANNOT_BE = re.compile(r"^(.+?) (?:cannot|can't|can not|must not|may not) be (\w+)", re.IGNORECASE)
_ONLY_IF = re.compile(r"^(.+?) can(?: only)? be (\w+) only if ([\w -]+)", re.IGNORECASE)
_WINDOW = re.compile(r"can be (\w+) within (\d{1,6}) (hour|day)s?", re.IGNORECASE)
_UNCHANGED = re.compile(r"including ([\w ,-]+?), can change (\w+) without changing the (\w+)", re.IGNORECASE)
_NOW = re.compile(r"current (?:date|time)\D{0,12}(\d{4}-\d\d-\d\d[ T]\d\d:\d\d(?::\d\d)?)", re.IGNORECASE)
_CREATED = ("created_at", "created", "ordered_at", "booked_at", "placed_at", "purchase_date")
_NO = ("no", "none", "false", "n")


@dataclass(frozen=True)
class Verdict:
    """What the policy says about an action on a record: forbidden and why, or allowed."""

    forbidden: bool
    why: str


@dataclass(frozen=True)
class Rule:
    """One prohibition: the action ``verb`` is forbidden on records that hold one of ``values``.

    ``noun`` names the kind of record. With a ``condition``, the action is allowed where the flag of that name is set.
    """

    values: frozenset[str]
    noun: str
    verb: str
    condition: frozenset[str]
    text: str


@lru_cache(maxsize=65536)
def same_action(tool: str, verb: str) -> bool:
    """True if a tool named ``tool`` does what ``verb`` says: same stem, or synonyms."""
    wanted, named = stem(verb.lower()), {stem(word) for word in name_words(tool)}
    return wanted in named or any(wanted in group and named & group for group in _SYNONYMS)


@lru_cache(maxsize=64)
def _rules(policy: str) -> tuple[Rule, ...]:
    found = []
    for sentence in re.split(r"(?<=[.!?])\s|\n", policy):
        plain = re.sub(r"^[\s\-*]*(?:[A-Z][\w ]+: )?", "", sentence)
        cannot, only_if = _CANNOT_BE.search(plain), _ONLY_IF.search(plain)
        match = only_if or cannot
        if match is None:
            continue
        subject = words(match.group(1))
        kinds = re.split(r"\bor\b|,|\band\b|\botherwise\b", match.group(1).lower())
        noun = subject[-1] if subject else ""
        values = frozenset(kind.strip().removesuffix(noun).strip() for kind in kinds) - {""}
        condition = frozenset(stem(word) for word in words(only_if.group(3))) if only_if else frozenset()
        found.append(Rule(values, noun, match.group(2), condition, match.group(0).strip()))
    return tuple(found)


def policy_verdict(policy: str, tool: str, arguments: dict[str, Any], record: dict[str, Any]) -> Verdict | None:
    """What ``policy`` says about calling ``tool`` on ``record``; None where no rule that is understood covers it."""
    status = next((record[key].lower() for key in ("status", "state") if isinstance(record.get(key), str)), None)
    for found in (*_ONLY_THAT_ARE.finditer(policy), *_ONLY_SUCH.finditer(policy)):
        if status is not None and same_action(tool, found.group(1)):
            allowed = status in words(found.group(2))
            return Verdict(not allowed, f"{found.group(0)!r}, and the record is {status}")
    verdict = _by_value(policy, tool, arguments, record) or _by_prohibition(policy, tool, arguments, record)
    if verdict is not None and verdict.forbidden and _inside_window(policy, tool, record):
        return Verdict(False, "inside the time window")
    return verdict


def _by_value(policy: str, tool: str, arguments: dict[str, Any], record: dict[str, Any]) -> Verdict | None:
    held = {str(v).lower().replace("_", " ") for _, v in leaves(record) if isinstance(v, str) and len(v) <= 24}
    for rule in _rules(policy):
        if not held & rule.values or not same_action(tool, rule.verb):
            continue
        value = min(held & rule.values)
        if rule.condition:
            for key, flag in record.items():
                if stem(key.split("_")[-1]) in rule.condition and (flag is False or str(flag).lower() in _NO):
                    return Verdict(True, f"{rule.text!r}, and the record says {value}, {key}: {flag}")
        elif any(same_object(rule.noun, part) for part in [*name_words(tool), *arguments]):
            # "flights cannot be modified" speaks of the tool that changes flights, not of the one for passengers.
            if _permitted_part(policy, value, arguments, record):
                return Verdict(False, "an exception of the policy allows it")
            return Verdict(True, f"{rule.text!r}, and the record says {value}")
    return None


@lru_cache(maxsize=64)
def _prohibitions(policy: str) -> tuple[Prohibition, ...]:
    return tuple(prohibitions(policy))


def _by_prohibition(policy: str, tool: str, arguments: dict[str, Any], record: dict[str, Any]) -> Verdict | None:
    held = {value.lower().replace("_", " "): key for key, value in record.items() if isinstance(value, str)}
    held |= {" ".join(name_words(key)).removeprefix("is "): key for key, value in record.items() if value is True}
    objects = {*name_words(tool)[1:], *(word for key in arguments for word in name_words(key))}
    for rule in _prohibitions(policy):
        found = sorted(rule.values & set(held))
        about = not rule.noun or not name_words(tool)[1:] or any(same_object(rule.noun, word) for word in objects)
        if found and about and same_action(tool, rule.verb):
            if _permitted_part(policy, found[0], arguments, record):
                return Verdict(False, "an exception of the policy allows it")
            return Verdict(True, f"{rule.text!r}, and the record says {held[found[0]]}: {found[0]}")
    return None


def _permitted_part(policy: str, value: str, arguments: dict[str, Any], record: dict[str, Any]) -> bool:
    """True if the policy lets ``value`` "change cabin without changing the flights", and the call keeps to that."""
    for found in _UNCHANGED.finditer(policy):
        part, kept = found.group(2), found.group(3)
        if value in found.group(1).lower() and part in arguments and kept in arguments and kept in record:
            return argument_ids(arguments[kept]) <= argument_ids(record[kept])
    return False


def _inside_window(policy: str, tool: str, record: dict[str, Any]) -> bool:
    """True if the policy allows the action within some time of the record's creation, and that time is not over."""
    age = _age(policy, record)
    for found in _WINDOW.finditer(policy):
        unit = timedelta(hours=1) if found.group(3).lower() == "hour" else timedelta(days=1)
        if age is not None and same_action(tool, found.group(1)) and age <= int(found.group(2)) * unit:
            return True
    return False


def _age(policy: str, record: dict[str, Any]) -> timedelta | None:
    """How old the record is by the policy's clock; None if either time is unknown."""
    now = _NOW.search(policy)
    created = next((record[key] for key in _CREATED if isinstance(record.get(key), str)), None)
    if now is None or created is None:
        return None
    try:
        return datetime.fromisoformat(now.group(1)) - datetime.fromisoformat(created).replace(tzinfo=None)
    except ValueError:
        return None


def latest_record(values: list[Any], identifier: str) -> dict[str, Any] | None:
    """The last object of ``values`` that names ``identifier`` in a field of its own, or is listed by it."""
    for value in reversed(values):
        for record in records(value):
            if identifier in record.values():
                return record
            listed = record.get(identifier)
            if isinstance(listed, dict):
                return listed
    return None
