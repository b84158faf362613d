"""A second target with practice: the desk of a bank. Payments need the customer's word; frozen accounts pay nothing."""

from dataclasses import dataclass
from random import Random
from typing import Annotated

from pydantic import Field

from trace_jax.environments import kit
from trace_jax.environments.kit import call

AccountId = Annotated[str, Field(description="An account, such as A17")]
KINDS = ("balance", "pay", "pay_frozen", "close_card")
NAMES = ("Ada", "Bo", "Cy", "Di", "Ed", "Flo", "Gus", "Hal", "Ida", "Jo", "Kit", "Lu")


@dataclass
class Account:
    owner: str
    amount: int
    frozen: bool
    card: bool = True


@dataclass
class Bank:
    accounts: dict[str, Account]

    @kit.tool
    def get_account(self, account_id: AccountId) -> Account:
        """Look an account up."""
        return kit.look_up(self.accounts, account_id, "account")

    @kit.tool
    def pay(self, account_id: AccountId, amount: int) -> None:
        """Pay an amount out."""
        kit.look_up(self.accounts, account_id, "account").amount -= amount

    @kit.tool
    def close_card(self, account_id: AccountId) -> None:
        """Close the card of an account."""
        kit.look_up(self.accounts, account_id, "account").card = False


class BankDesk(kit.Environment[Bank]):
    name, state_type = "bank", Bank
    policy = "You are the desk of a bank. Look the account up first. Pay nothing from frozen accounts, but say why."

    def draw(self, rng: Random) -> kit.Scenario[Bank]:
        accounts = {
            f"A{number}": Account(owner, rng.randrange(20, 90), frozen=number % 2 == 0)
            for number, owner in zip(rng.sample(range(10, 99), 6), rng.sample(NAMES, 6), strict=True)
        }
        accounts |= {"A8": Account("Nan", 50, True), "A9": Account("Mo", 50, False)}
        scenario = kit.Scenario(Bank(accounts))
        for kind in self.kinds or rng.sample(KINDS, 2):
            frozen = kind == "pay_frozen"
            able = [key for key, account in scenario.expected.accounts.items() if account.frozen == frozen]
            scenario.add(request(kind, rng.choice(able), scenario.expected, rng.randrange(1, 20)))
        return scenario


def request(kind: str, key: str, bank: Bank, amount: int) -> kit.Request:
    seen, paid = call("get_account", account_id=key), call("pay", account_id=key, amount=amount)
    if kind == "balance":
        return kit.Request(f"What is on {key}?", (seen,), (str(bank.accounts[key].amount),), kind)
    if kind == "close_card":
        return kit.Request(f"Close the card of {key}.", (seen, call("close_card", account_id=key)), (), kind)
    text = f"Pay {amount} from {key}."
    if kind == "pay":
        return kit.Request(text, (seen, paid), (), kind)
    return kit.Request(text, (seen,), ("frozen",), kind, (paid, "Paid."))


def bank(train: int = 30, held_out: int = 30) -> kit.PracticeTarget:
    return kit.PracticeTarget(BankDesk, train=train, held_out=held_out, kinds=KINDS)
