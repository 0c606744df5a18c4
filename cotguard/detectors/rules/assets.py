"""Things that stand for a person: vehicles and customer records.

A vehicle identification number (ISO 3779) has 17 characters without I, O and Q. In North America the ninth is a
check digit (49 CFR 565.15); with it and a numeric tail no context is needed. Elsewhere the label decides.

Customer numbers have no format: an identifier is one by its label, or by the one it carries (``EMP-20798``). Labels
are those of persons (customer, member, employee ...), not of things (order, ticket, case).
"""

import re
from collections.abc import Iterator

from cotguard.detectors.rule import Candidate, Found, Rule
from cotguard.detectors.rules.context import IDENTIFIER, Context, digits, is_joined

__all__ = ["RULES"]

_VIN_LABEL = Context(
    "vin", "vehicle identification number", "vehicle id", "chassis", "chassis number", "fahrgestellnummer"
)
_VIN_VALUES = {
    **{digit: int(digit) for digit in "0123456789"},
    **dict(zip("ABCDEFGHJKLMNPRSTUVWXYZ", (*range(1, 9), *range(1, 6), 7, 9, *range(2, 10)), strict=True)),
}
_VIN_WEIGHTS = (8, 7, 6, 5, 4, 3, 2, 10, 0, 9, 8, 7, 6, 5, 4, 3, 2)

_CUSTOMER_LABEL = Context(
    *(
        f"{person} {noun}"
        for person in (
            "customer",
            "client",
            "member",
            "membership",
            "subscriber",
            "employee",
            "staff",
            "student",
            "loyalty",
        )
        for noun in ("id", "identifier", "number", "no", "nr", "num", "code")
    ),
    *(f"{person} account {noun}" for person in ("customer", "client") for noun in ("id", "number", "no")),
    "account id",
    "customer ref",
    "customer reference",
    "user id",
    "loyalty card",
    "frequent flyer",
    "frequent flyer number",
    "kundennummer",
    "kunden nr",
    "mitgliedsnummer",
    "numéro client",
    "numéro de client",
    "número de cliente",
    "codice cliente",
    "klantnummer",
    "kundnummer",
    reach=45,
)


_SELF_LABELLED = re.compile("(?:emp|empl|employee|cust|cus|customer|client|mbr|member)[-_][0-9]{4,}", re.IGNORECASE)


def _vin_check_digit(vin: str) -> str:
    remainder = sum(weight * _VIN_VALUES[c] for weight, c in zip(_VIN_WEIGHTS, vin, strict=True)) % 11
    return "X" if remainder == 10 else str(remainder)


def _vin(candidate: Candidate) -> Iterator[Found]:
    vin = candidate.text.upper()
    mixed = 3 <= len(digits(vin)) < 17
    if mixed and not is_joined(candidate):
        if vin[8] == _vin_check_digit(vin) and vin[13:].isdigit():
            yield Found(0, 17, "VEHICLE_ID", 0.9)
        elif _VIN_LABEL.near(candidate.before):
            yield Found(0, 17, "VEHICLE_ID", 0.8)


def _customer(candidate: Candidate) -> Iterator[Found]:
    if len(digits(candidate.text)) < 3 or is_joined(candidate):
        return
    if _CUSTOMER_LABEL.labels(candidate.before):
        yield Found(0, len(candidate.text), "CUSTOMER_ID", 0.75)
    elif _SELF_LABELLED.fullmatch(candidate.text):
        yield Found(0, len(candidate.text), "CUSTOMER_ID", 0.6)


RULES: tuple[Rule, ...] = (
    Rule(name="vin", entity="VEHICLE_ID", value="[0-9A-HJ-NPR-Za-hj-npr-z]{17}", check=_vin),
    Rule(name="customer-id", entity="CUSTOMER_ID", value=IDENTIFIER, check=_customer),
)
