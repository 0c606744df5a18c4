"""Money: payment cards, bank accounts, crypto-currency addresses.

Algorithm: a shape, then what the standard lets one verify.

* Cards (ISO/IEC 7812): issuer range, length of that issuer, Luhn. Numbers shorter than 14 digits also occur as article
  numbers, so they need a card word.
* IBAN (ISO 13616): national length and structure, mod 97 (python-stdnum).
* SWIFT/BIC (ISO 9362) has no checksum and looks like a word in capitals: only next to a word for it.
* ABA routing number: checksum and a word for it. Account numbers: the label decides.
* Crypto addresses: base58check, bech32 and bech32m (BIP 173, BIP 350). Ethereum's EIP-55 checksum needs Keccak, which
  no dependency has, so its shape counts; Monero's and Solana's base58 have no such checksum, so a label counts.

A number of the right shape right behind its label, with a wrong check digit, is reported with score 0.5: models
misremember, and a number with one wrong digit still gives the rest away.
"""

import re
from collections.abc import Iterator
from hashlib import sha256

from stdnum import iban, luhn
from stdnum.us import rtn

from cotguard.detectors.rule import NOT_DIGIT, Candidate, Found, Rule
from cotguard.detectors.rules.context import IDENTIFIER, Context, cuts, digits, is_joined

__all__ = ["RULES"]

_MISTYPED = 0.5

# Issuer ranges as (first, last, lengths); first and last have the same number of digits.
_ISSUERS = (
    ("4", "4", {13, 16, 19}),  # Visa
    ("51", "55", {16}),  # Mastercard
    ("2221", "2720", {16}),  # Mastercard
    ("34", "34", {15}),  # American Express
    ("37", "37", {15}),  # American Express
    ("6011", "6011", {16, 17, 18, 19}),  # Discover
    ("644", "659", {16, 17, 18, 19}),  # Discover
    ("300", "305", {14, 16, 19}),  # Diners Club
    ("3095", "3095", {14, 16, 19}),  # Diners Club
    ("36", "36", {14, 16, 19}),  # Diners Club
    ("38", "39", {14, 16, 19}),  # Diners Club
    ("3528", "3589", {16, 17, 18, 19}),  # JCB
    ("1800", "1800", {15}),  # JCB
    ("2131", "2131", {15}),  # JCB
    ("62", "62", {16, 17, 18, 19}),  # UnionPay, Discover
    ("81", "82", {16, 17, 18, 19}),  # UnionPay, RuPay
    ("2200", "2204", {16, 17, 18, 19}),  # Mir
    ("9792", "9792", {16}),  # Troy
    ("50", "50", {12, 13, 14, 15, 16, 17, 18, 19}),  # Maestro, Verve, Elo
    ("56", "58", {12, 13, 14, 15, 16, 17, 18, 19}),  # Maestro
    ("60", "60", {16}),  # RuPay, Hipercard
    ("63", "63", {12, 13, 14, 15, 16, 17, 18, 19}),  # Maestro, Elo, InstaPayment
    ("67", "67", {12, 13, 14, 15, 16, 17, 18, 19}),  # Maestro
)

_ISSUERS_BY_DIGIT = {
    digit: [issuer for issuer in _ISSUERS if issuer[0][0] <= digit <= issuer[1][0]] for digit in "0123456789"
}

_CARD_WORD = Context(
    *("card", "credit", "debit", "cc", "visa", "mastercard", "amex", "american express", "maestro", "pan", "discover"),
    *("tarjeta", "carte", "karte", "kreditkarte", "carta", "cartão", "kaart", "carte bancaire", "card number"),
    reach=60,
)
_CARD_LABEL = Context(
    *("credit card", "debit card", "card number", "card no", "credit card number", "cc number", "cardnumber"),
    *("kreditkartennummer", "numéro de carte", "número de tarjeta", "numero di carta"),
    reach=40,
)
_IBAN_LABEL = Context("iban", "iban number", reach=30)
_SWIFT_WORD = Context("swift", "bic", "swift code", "bic code", reach=50)
_ROUTING_WORD = Context("routing", "routing number", "aba", "aba number", "rtn", "transit", "wire", reach=60)
_US_BANK_WORD = Context(
    *("checking", "savings", "routing", "routing number", "aba", "ach", "us bank", "bank account", "direct deposit"),
    reach=100,
)
_ACCOUNT_LABEL = Context(
    *("account number", "account no", "account num", "acct", "acct no", "acct number", "a c number"),
    *("bank account", "checking account", "savings account", "sort code", "bsb", "ifsc", "clabe", "bban"),
    *("kontonummer", "konto nr", "bankleitzahl", "numéro de compte", "rib", "número de cuenta"),
    *("conto corrente", "conta corrente", "agência", "rekeningnummer", "numer konta"),
    reach=45,
)
_ACCOUNT_BARE_LABEL = Context("account", "compte", "cuenta", "conta", "konto", "conto", reach=11)
_WALLET_WORD = Context(
    *("wallet", "address", "crypto", "deposit", "solana", "sol", "monero", "xmr", "phantom", "send", "pay"), reach=60
)

_BASE58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_RIPPLE = "rpshnaf39wBUDNEGHJKLM4PQRST7VWXYZ2bcdeCg65jkm8oFqi1tuvAxyz"
_BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_HAS_DIGIT = re.compile("[0-9]")


def _card(candidate: Candidate) -> Iterator[Found]:
    is_glued = candidate.before[-1:].isalpha() and candidate.text.isdigit()  # part of a hexadecimal number
    if is_glued or is_joined(candidate):
        return
    labelled = False
    for end in cuts(candidate.text):
        number = digits(candidate.text[:end])
        if not _is_issued(number):
            continue
        if luhn.is_valid(number) and (len(number) > 13 or _CARD_WORD.near(candidate.before)):
            yield Found(0, end, "CREDIT_CARD", 0.95)
            return
        labelled = labelled or (end == len(candidate.text) and _CARD_LABEL.labels(candidate.before))
    if labelled:
        yield Found(0, len(candidate.text), "CREDIT_CARD", _MISTYPED)


def _is_issued(number: str) -> bool:
    return any(
        len(number) in lengths and first <= number[: len(first)] <= last
        for first, last, lengths in _ISSUERS_BY_DIGIT[number[0]]
    )


def _iban(candidate: Candidate) -> Iterator[Found]:
    text = candidate.text
    for end in cuts(text):
        if iban.is_valid(text[:end], check_country=False):
            yield Found(0, end, "IBAN_CODE", 0.95)
            return
    if _IBAN_LABEL.labels(candidate.before):
        groups = text.split(" ")
        while not _HAS_DIGIT.search(groups[-1]):
            groups.pop()
        yield Found(0, len(" ".join(groups)), "IBAN_CODE", _MISTYPED)


def _swift(candidate: Candidate) -> Iterator[Found]:
    if _SWIFT_WORD.near(candidate.before):
        yield Found(0, len(candidate.text), "SWIFT_CODE", 0.85)


def _account(candidate: Candidate) -> Iterator[Found]:
    number = digits(candidate.text)
    if is_joined(candidate):
        return
    if len(number) == 9 and _ROUTING_WORD.near(candidate.before) and rtn.is_valid(number):
        yield Found(0, len(candidate.text), "ABA_ROUTING_NUMBER", 0.9)
    elif (len(number) >= 6 and _is_account(candidate.before)) or (
        len(number) >= 10 and len(number) < len(candidate.text) and _ACCOUNT_LABEL.near(candidate.before)
    ):
        is_us = 8 <= len(number) <= 17 and len(candidate.text) == len(number) and _US_BANK_WORD.near(candidate.before)
        yield Found(0, len(candidate.text), "US_BANK_NUMBER" if is_us else "BANK_ACCOUNT", 0.8)


def _is_account(before: str) -> bool:
    return _ACCOUNT_LABEL.labels(before) or _ACCOUNT_BARE_LABEL.labels(before)


def _account_groups(candidate: Candidate) -> Iterator[Found]:
    if not is_joined(candidate) and _is_account(candidate.before):
        yield Found(0, len(candidate.text), "BANK_ACCOUNT", 0.8)


def _base58check(candidate: Candidate) -> Iterator[Found]:
    if _is_base58check(candidate.text, _BASE58) or (
        candidate.text[0] == "r" and _is_base58check(candidate.text, _RIPPLE)
    ):
        yield Found(0, len(candidate.text), "CRYPTO", 0.95)


def _is_base58check(text: str, alphabet: str) -> bool:
    """Whether ``text`` is base58 of one version byte, 20 bytes and the first four of their double SHA-256."""
    number = 0
    for character in text:
        index = alphabet.find(character)
        if index < 0:
            return False
        number = number * 58 + index
    if number >> 200:
        return False
    data = number.to_bytes(25, "big")
    return sha256(sha256(data[:21]).digest()).digest()[:4] == data[21:]


def _bech32(candidate: Candidate) -> Iterator[Found]:
    prefix, _, data = candidate.text.lower().rpartition("1")
    values = [ord(c) >> 5 for c in prefix] + [0] + [ord(c) & 31 for c in prefix] + [_BECH32.find(c) for c in data]
    if min(values) >= 0 and _bech32_checksum(values) in (1, 0x2BC830A3):
        yield Found(0, len(candidate.text), "CRYPTO", 0.95)


def _bech32_checksum(values: list[int]) -> int:
    """BIP 173's polynomial: 1 for bech32, 0x2BC830A3 for bech32m (BIP 350)."""
    checksum = 1
    for value in values:
        top = checksum >> 25
        checksum = (checksum & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            checksum ^= generator if top >> bit & 1 else 0
    return checksum


def _ethereum(candidate: Candidate) -> Iterator[Found]:
    text = candidate.text[2:]
    if len(set(text.lower())) > 4:  # 0x000...0 and the like are constants of programs
        mixed = text != text.lower() and text != text.upper()
        yield Found(0, len(candidate.text), "CRYPTO", 0.9 if mixed or _WALLET_WORD.near(candidate.before) else 0.6)


def _unchecked(candidate: Candidate) -> Iterator[Found]:
    if _WALLET_WORD.near(candidate.before) and _HAS_DIGIT.search(candidate.text):
        yield Found(0, len(candidate.text), "CRYPTO", 0.7)


_COUNTRIES = (
    "A[DELMOTUZ]|B[ABDEGHIJMNORSTWYZ]|C[ADHILMNORUVYZ]|D[EKMOZ]|E[CEGST]|F[IJOR]|G[ABEGHIRT]|H[KNRTU]|I[DELNRST]|J[MOP]"
    "|K[EGHRWYZ]|L[ABIKTUVY]|M[ACDEKLNOTUVXYZ]|N[AEGILOPZ]|O[M]|P[AEGHKLST]|Q[A]|R[OSUW]|S[ACEGIKMNV]|T[GHNRTWZ]|U[AGSYZ]"
    "|V[AEGN]|XK|Y[ET]|Z[AMW]"
)

RULES: tuple[Rule, ...] = (
    Rule(
        name="credit-card",
        entity="CREDIT_CARD",
        value="[0-9](?:[ .-]?[0-9]){11,18}",
        before=NOT_DIGIT,
        after=NOT_DIGIT,  # "4111-1111-1111-1111exp12/27"
        check=_card,
    ),
    Rule(
        name="iban",
        entity="IBAN_CODE",
        value="[A-Za-z]{2}[0-9]{2}(?:[0-9A-Za-z]{11,30}|(?:[ -][0-9A-Za-z]{4}){2,7}(?:[ -]?[0-9A-Za-z]{1,3})?)",
        check=_iban,
    ),
    Rule(
        name="swift",
        entity="SWIFT_CODE",
        value=f"[A-Z]{{4}}(?:{_COUNTRIES})[A-Z0-9]{{2}}(?:[A-Z0-9]{{3}})?",
        check=_swift,
    ),
    Rule(
        name="bank-account",
        entity="BANK_ACCOUNT",
        value=IDENTIFIER,
        check=_account,
        also=frozenset({"US_BANK_NUMBER", "ABA_ROUTING_NUMBER"}),
    ),
    Rule(
        name="bank-account-groups",
        entity="BANK_ACCOUNT",
        value="[0-9]{2,6}(?:[ -][0-9]{2,10}){1,5}",
        check=_account_groups,
    ),
    Rule(name="base58check", entity="CRYPTO", value="[13LMDTXAr7t][1-9A-HJ-NP-Za-km-z]{25,34}", check=_base58check),
    Rule(
        name="bech32",
        entity="CRYPTO",
        value="(?:bc|tb|ltc|addr)1[02-9ac-hj-np-z]{11,98}",
        ignore_case=True,
        check=_bech32,
    ),
    Rule(name="ethereum", entity="CRYPTO", value="0[xX][0-9A-Fa-f]{40}", check=_ethereum),
    Rule(
        name="base58",
        entity="CRYPTO",
        value="[1-9A-HJ-NP-Za-km-z]{43,44}|[48][1-9A-HJ-NP-Za-km-z]{94}",
        check=_unchecked,
    ),
)
