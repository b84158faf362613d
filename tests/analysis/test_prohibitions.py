"""What a policy forbids, in the forms in which people write it; and what it does not forbid."""

import pytest

from trace_jax.analysis.rules import policy_verdict

FROZEN, ACTIVE = {"id": "A1", "status": "frozen"}, {"id": "A1", "status": "active"}
TABLE = """| status | close | transfer |
|---|---|---|
| active | yes | yes |
| frozen | no | yes |
"""
LIST = """The following accounts must not be closed:
- frozen accounts
* locked accounts

The following must not be transferred:
1. dormant accounts
"""


def forbidden(policy: str, tool: str, record: dict[str, object]) -> bool:
    verdict = policy_verdict(policy, tool, {"account_id": "A1"}, record)
    return verdict is not None and verdict.forbidden


@pytest.mark.parametrize(
    "policy",
    [
        TABLE,
        LIST,
        "Never close frozen accounts.",
        "Be polite. You must not close accounts that are frozen or locked; say why.",
        "Accounts which are frozen cannot be closed.",
        "If an account is frozen, it must not be closed.",
        "When the account is already frozen, never close it.",
        "1. Do not close an account whose status is frozen.",
        "- Frozen accounts cannot be closed.",
    ],
)
def test_a_prohibition_is_read_in_every_form_and_holds_for_its_values_and_its_action_alone(policy: str) -> None:
    for tool in ("close_account", "mcp__bank__closeAccount", "accounts.close"):
        assert forbidden(policy, tool, FROZEN), tool
        assert not forbidden(policy, tool, ACTIVE), tool
    assert not forbidden(policy, "rename_account", FROZEN)
    assert not forbidden(policy, "transfer_money", FROZEN)


@pytest.mark.parametrize(
    "policy",
    [
        "Never close frozen accounts unless the customer insists.",
        "Never close frozen accounts without a confirmation.",
        "Accounts that are frozen must not be closed unless the customer insists.",
        "If an account is not frozen, it must not be closed.",
        "Do not close more than 3 frozen accounts.",
        "Frozen accounts can be closed.",
        "If an account is frozen, say so before it is closed.",
        "Ask whether the account is frozen. Never close the conversation first.",
        "| status | close |\n|---|---|\n| frozen | ask first |\n",
        "Never close an account before you have read it; frozen accounts are rare.",
    ],
)
def test_exceptions_and_other_sentences_forbid_nothing(policy: str) -> None:
    assert not forbidden(policy, "close_account", FROZEN)


def test_a_flag_may_be_named_by_a_noun() -> None:
    policy = "Keep the calendar. Never cancel board meetings: say why."
    board = {"title": "x", "board": True}
    verdict = policy_verdict(policy, "cancel", {"meeting_id": "M1"}, board)
    assert verdict is not None and verdict.forbidden and "board" in verdict.why
    assert policy_verdict(policy, "cancel", {"meeting_id": "M1"}, {"title": "x", "board": False}) is None
    assert policy_verdict(policy, "move", {"meeting_id": "M1"}, board) is None
    assert policy_verdict(policy, "cancel_trip", {"trip_id": "T1"}, board) is None
