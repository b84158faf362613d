"""Lessons of a target that nobody prepared: mistakes come with their share, words are those of its calls."""

import numpy as np
import pytest
from bank_desk import BankDesk

from configs.calendar_agent import get_config
from launch.lessons import demonstrate, lessons, vocabulary
from launch.tiny_agent import practice_source
from trace_jax.errors import UserError


def config(target, **changes):
    found = get_config()
    with found.unlocked():
        found.target.environment = target
        found.update({"skills": 40, "habits": (20, 20), "tickets": 20, **changes})
    return found


def test_skills_are_right_and_habits_are_mistaken_with_their_share():
    given = config("bank_desk:bank", wrong_share=1.0)
    drawn = list(lessons(practice_source(given), given))
    assert [len(lesson.task.requests) for lesson in drawn[:40]] == [1] * 40
    assert sorted(len(lesson.task.requests) for lesson in drawn[40:]) == [1] * 20 + [2] * 40
    rng = np.random.default_rng(0)
    for number, lesson in enumerate(drawn):
        opening, turns = demonstrate(lesson, rng)
        assert [message.role for message in opening] == ["system", "user"]
        frozen = [request for request in lesson.task.requests if request.kind == "pay_frozen"]
        said = [message.content for message, _ in turns if message.content]
        assert said.count("Paid.") == (0 if number < 40 else len(frozen))


def test_words_and_identifiers_are_those_of_the_calls_or_the_target_s_own():
    given = config("bank_desk:bank")
    target = practice_source(given)
    shown = [demonstrate(lesson, np.random.default_rng(0)) for lesson in lessons(target, given)]
    words, identifiers = vocabulary(target, shown)
    assert words == [] and len(identifiers) > 20 and all(name[0] == "A" for name in identifiers)
    helpdesk = practice_source(config("helpdesk"))
    assert vocabulary(helpdesk, shown) == (list(helpdesk.words), list(helpdesk.identifiers))


def test_what_cannot_be_taught_is_refused(monkeypatch):
    with pytest.raises(UserError, match="target 'helpdesk_short': brings no practice"):
        practice_source(config("helpdesk_short"))
    right = BankDesk.draw

    def draw(self, rng):
        self.kinds = ("pay",) * len(self.kinds)
        return right(self, rng)

    monkeypatch.setattr(BankDesk, "draw", draw)
    with pytest.raises(UserError, match="target 'bank_desk:bank': no kind of its requests has a wrong path"):
        practice_source(config("bank_desk:bank"))
