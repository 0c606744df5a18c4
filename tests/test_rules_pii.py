"""PII, network, financial, government, health and asset rules: one table of cases and near misses per rule.

In a case the expected values stand in ``⟦⟧``; a case without them is a near miss.
"""

import functools
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cotguard.detectors.conformance import check_cuts, check_every_cut, find
from cotguard.detectors.contract import Scope
from cotguard.detectors.patterns import PatternDetector
from cotguard.detectors.rule import Rule
from cotguard.detectors.rules import assets, contact, financial, government, health, network
from cotguard.detectors.rules.context import Context
from cotguard.spans import ChannelKind, Span
from cotguard.taxonomy import ENTITIES

MODULES = (contact, network, financial, government, health, assets)
RULES: tuple[Rule, ...] = tuple(rule for module in MODULES for rule in module.RULES)
BY_NAME = {rule.name: rule for rule in RULES}
REASONING = Path(__file__).resolve().parents[2] / "shared" / "data" / "train" / "reasoning"

MARKED = re.compile("⟦(.*?)⟧", re.DOTALL)

UUID = "550e8400-e29b-41d4-a716-446655440000"
GIT_HASH = "d6cfd48972acdd8a8ae5e4e18570d0d881d8a861"
ARITHMETIC = "Natalia sold 48/2 = <<48/2=24>>24 clips, 60000 - 10800 = 49200, 0.75 - 0.25 - 0.10 = 0.4, 12 x 12345678"
BENIGN = (
    UUID,
    GIT_HASH,
    ARITHMETIC,
    "1699999999 and 1699999999999 and 2024-01-15T10:30:00Z and 2024-01-15 10:30:12",
    "order 4155552671, order #2024-10-000123, invoice INV-2024-000123, ISBN 978-0-306-40615-7",
    "about 1,000,000 people, 612 345 678 of them in 1990-2020, pi is 3.14159265358979",
    "Python 3.11.4, version 1.2.3.4, see section 2.10.4.1, at 12:30:45, std::vector<int>, a::b, x[1:2:3]",
    "call 911 or wait, phone 12 of them, the passport was lost, she was born in 1984, his account is empty",
)

CASES: dict[str, tuple[str, ...]] = {
    "email": (
        "Mail ⟦john.doe+tag@mail.example.co.uk⟧. Thanks",
        "<⟦jane_d@example.com⟧>, email=⟦foo@example.com⟧ and '⟦x@y.org⟧'",
        '{"email": "⟦o\'brien%x@example.museum⟧"} mailto:⟦a@xn--bcher-kva.example⟧',
        "⟦foo@example.com⟧.2 and ⟦foo@example.com⟧_bar, ⟦foo@example.com⟧..and ⟦foo@sub-1.example.photography⟧!",
        "请联系⟦foo@example.com⟧或者 ⟦josé@exämple.com⟧ ⟦user&#64;example.com⟧ ⟦a\\u0040example.com⟧",
        "zero ⟦us\u200ber@exam\u200bple.com⟧ width, full ⟦ｕｓｅｒ＠example．com⟧ width",
        "git@github.com:a/b, @app.route, a@b, root@localhost, pkg@1.2.3, user@, @example.com",
    ),
    "email-spelled": (
        "⟦john.doe [at] example [dot] com⟧ or ⟦john(at)example.org⟧ or ⟦j.d{at}mail(dot)example(dot)net⟧",
        "⟦jane at example dot com⟧, ⟦JOE AT EXAMPLE DOT COM⟧, a@b",
        "look at the dot com bubble, look at example.org, meet at noon dot. array[at] x, f(at) home",
    ),
    "phone": (
        "⟦+1 415 555 0132⟧, ⟦(415) 555-2671⟧, ⟦415-555-2671⟧; ⟦415.555.2671⟧ or ⟦+14155552671⟧",
        "⟦+44 20 7946 0958⟧, ⟦+44 (0)20 7946 0958⟧, ⟦+49 170 1234567⟧, ⟦+33 6 12 34 56 78⟧, ⟦+81-3-1234-5678⟧",
        "⟦020 7946 0958⟧, ⟦06 12 34 56 78⟧, ⟦030 12345678⟧, ⟦090-1234-5678⟧, ⟦138 1234 5678⟧, ⟦98765 43210⟧",
        "Phone: **⟦9922221610⟧** and mobile ⟦07700 900123⟧; call ⟦975-323-1123x2748⟧ or ⟦001-737-667-3162x526⟧",
        "Her phone is ⟦555-0136⟧. ⟦(481)223-1239⟧, ⟦1-800-931-2237⟧, ⟦415 555 2671⟧ ⟦(212) 555-0199 ext. 12⟧",
        "teléfono ⟦612 345 678⟧, Handy: ⟦0170 1234567⟧, whatsapp ⟦+5511912345678⟧",
        'Call 12 people, then ⟦415-555-2671⟧ 12 times. {"phoneNumber": "⟦5551234567⟧"}',
        "⟦415-555-2671⟧,⟦415-555-2672⟧/⟦415-555-2673⟧;⟦+14155552674⟧|⟦+14155552675⟧",
        "ORD-415-555-2671, 415-555-26712, 415-555-267, x415-555-2671",
        "call on 2024-01-15, phone or SSN 123-45-6789, tel 192.168.100.100, phone costs 1299.9999",
        "call 4111 1111 1111 1111, 41555526 alone, 100 200 300 400, +1 23",
    ),
    "date-of-birth": (
        'born on ⟦3 May 1990⟧. DOB: **⟦1977-04-13⟧**, "dateOfBirth": "⟦02/29/1984⟧", date_of_birth=⟦1990/1/5⟧',
        "née le ⟦5 août 1987⟧, geboren am ⟦3. März 1990⟧, nacido el ⟦5 de mayo de 1990⟧, nato il ⟦1 gennaio 1970⟧",
        "Date of Birth: ⟦November 16, 1994⟧; birthday: ⟦5th of June, 1987⟧; Geburtsdatum ⟦13.05.1990⟧; DOB ⟦19900105⟧",
        "Born ⟦1990-01-01⟧ and hired 2020-03-04.",
        "The meeting is on May 5th, 2021, hire date 2020-01-02, released 13.05.1990",
        "She was born in 1984 and has 12/17 of it. The reborn site opened on 2021-05-05",
        "DOB 99-99-9999, DOB 20241301, born 3 Foo 1990",
    ),
    "ipv4": (
        "server ⟦192.168.1.10⟧, ⟦10.0.0.0/8⟧, ⟦10.0.0.1⟧-⟦10.0.0.9⟧, http://⟦8.8.8.8⟧:80/, [⟦203.0.113.7⟧]. ⟦1.1.1.1⟧",
        "127.0.0.1, 0.0.0.0, 255.255.255.0, 256.1.1.1, 1.2.3.4.5, 1.2.3, 1.2.3.4a",
        "version 1.2.3.4, v1.2.3.4, Chrome/120.0.0.0, OID 1.2.3.4, section 1.2.3.4, pkg-1.2.3.4",
    ),
    "ipv6": (
        "⟦2001:db8::1⟧, ⟦fe80::1%eth0⟧, [⟦2001:db8::2⟧]:443, ⟦2001:DB8:0:0:8:800:200C:417A⟧ ⟦::ffff:192.0.2.1⟧",
        "⟦2001:0db8:85a3:0000:0000:8a2e:0370:7334⟧; host ⟦2001:db8::5⟧: up",
        "::1, ::, a::b, dead::beef, 12:30:45, std::vector, 1:2:3, 2001:db8:1, 2001:db8:::1, x2001:db8::1",
    ),
    "mac-address": (
        "⟦00:1A:2B:3C:4D:5E⟧ ⟦00-1a-2b-3c-4d-5e⟧ (⟦001a.2b3c.4d5e⟧)",
        "ff:ff:ff:ff:ff:ff 00:00:00:00:00:00 00:1A:2B:3C:4D 00:1A:2B-3C:4D:5E 12:34:56:78:9a:bc:de:f0",
        "00:1A:2B:3C:4D:5G",
    ),
    "credit-card": (
        "⟦4111 1111 1111 1111⟧ 12/27, ⟦4111111111111111⟧, ⟦5500-0000-0000-0004⟧, ⟦3782 822463 10005⟧",
        "⟦30569309025904⟧, ⟦6011.0009.9013.9424⟧, ⟦3530111333300000⟧; ⟦2223003122003222⟧, ⟦6304000000000000⟧",
        'visa ⟦4222222222222⟧ {"card":⟦4111111111111111⟧} pay 12 ⟦4111 1111 1111 1111⟧',
        "card⟦4111-1111-1111-1111⟧exp12/27",
        "⟦4111111111111111⟧,⟦5500000000000004⟧;⟦4111-1111-1111-1111⟧|⟦4111 1111 1111 1111⟧:123",
        "full-width ⟦４１１１ １１１１ １１１１ １１１１⟧, card number: ⟦4111 1111 1111 1112⟧",
        "4111 1111 1111 1112, 4222222222222, 4111-1111-1111-1111-5, x4111111111111111, 4111111111111111.5",
        "1234567812345670, 9999999999999995, 0.4111111111111111, 41111111111111111111",
    ),
    "iban": (
        "⟦DE89 3704 0044 0532 0130 00⟧ and then, ⟦gb82west12345698765432⟧, ⟦NO93 8601 1117 947⟧ this that",
        "⟦FR14-2004-1010-0505-0001-3M02-606⟧; IBAN: ⟦DE88 3704 0044 0532 0130 00⟧ is wrong",
        "DE88 3704 0044 0532 0130 00, XX89370400440532013000, DE8937040044053201300, ab12 then 3456 word",
    ),
    "swift": (
        "SWIFT code: ⟦DEUTDEFF500⟧, BIC ⟦COBADEFF⟧",
        "DEUTDEFF500, SWIFT: PASSWORD, BIC COBAXXFF, swift COBADEFFX",
    ),
    "bank-account": (
        "Account Number: **⟦WCTX22834914309215⟧**, account no. ⟦12345678⟧, Kontonummer ⟦1234567890⟧",
        "his account has 250000, account 12345, the accountant 12345678, account opened 2019-01-02 at 12345678",
    ),
    "bank-account-groups": (
        "sort code ⟦12-34-56⟧, account number: ⟦1234 5678 9012⟧, número de cuenta ⟦2100 0418 45 0200051332⟧",
        "12-34-56, 1234 5678 9012, account number of 2",
    ),
    "base58check": (
        "⟦1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa⟧ ⟦3J98t1WpEZ73CNmQviecrnyiWrnqRhWNLy⟧",
        "⟦TR7NHqjeKQxGTCi8q8ZY4pL8otSzgjLj6t⟧",
        "⟦rHb9CJAWyB4rj91VRWn96DkukG4bwdtyTh⟧ ⟦DH5yaieqoZN36fDVciNyRueRGvGLR3mr7L⟧",
        "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNb 1A1zP1eP5QGefi2DMPTfTL5SLmv7Divf x1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa",
    ),
    "bech32": (
        "⟦bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq⟧ ⟦BC1QW508D6QEJXTDG4Y5R3ZARVARY0C5XW7KV8F3T4⟧",
        "⟦bc1p0xlxvlhemja6c4dqv22uapctqupfhlxm9h8z3k2e72q4k9hcz7vqzk5jj0⟧",
        "bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdx bc1 bc1qqqq",
    ),
    "ethereum": (
        "⟦0x742d35Cc6634C0532925a3b844Bc454e4438f44e⟧ wallet ⟦0x742d35cc6634c0532925a3b844bc454e4438f44e⟧",
        "0x0000000000000000000000000000000000000000 0x742d35Cc6634C0532925a3b844Bc454e4438f44 0xdeadbeef " + GIT_HASH,
        "0x742d35Cc6634C0532925a3b844Bc454e4438f44e0",
    ),
    "base58": (
        "Solana wallet ⟦7EcDhSYGxXyscszYEp35KHN8vvw3svAuLKTzXwCFLtV⟧",
        "7EcDhSYGxXyscszYEp35KHN8vvw3svAuLKTzXwCFLtV, wallet 7EcDhSYGxXyscszYEp35",
    ),
    "us-ssn": (
        "⟦123-45-6789⟧, ⟦123 45 6789⟧, SSN: ⟦219099999⟧, socialSecurityNumber=⟦219-09-9999⟧,⟦219-09-9998⟧",
        "SSN⟦219-09-9999⟧x, SSN ⟦666-12-3456⟧",
        "123-45-67890, 1123-45-6789, 123-45-678, 123-456-789, 666-12-3456, 000-12-3456, 123-00-6789, 123-45-0000",
        "900-12-3456, 219099999, 123-45 6789, 12-123-45-6789, 123.45.6789",
        "SSN: 000-00-0000, SSN 123-45-67890, SSN A123-123-45-6789",
    ),
    "us-npi": (
        "NPI ⟦1234567893⟧, national provider identifier: ⟦1245319599⟧",
        "1234567893, NPI 1234567890, NPI 123456789",
    ),
    "us-dea": (
        "DEA ⟦AB1234563⟧, prescriber: ⟦fa1234563⟧, ⟦AB1234563⟧",
        "AB1234567, DEA AB1234560, AB12345634, DEA ZZ1234563",
    ),
    "medical-license": (
        "medical license number ⟦MD-123456⟧",
        "license MD-123456, medical license since 20, medical licenses are 3 of 10000",
    ),
    "medical-id": (
        'MRN: ⟦00123456⟧, "patient_id": "⟦PT-784084⟧", **Insurance ID:** ⟦INS-98213486⟧',
        "health plan member ID ⟦W1234567⟧",
        "bill the patient's insurance (⟦INS-31271026⟧)",
        "the patient paid 123456, insurance costs 12345, MRN: 12, order ID 00123456, MEMO-784084",
        "PT-784084, gym member ID 1234567",
    ),
    "vin": (
        "⟦1HGCM82633A004352⟧, ⟦1M8GDM9AXKP042788⟧, chassis number ⟦WVWZZZ1JZ3W386752⟧",
        "WVWZZZ1JZ3W386752, 1HGCM82633A004353, 1HGCM82633A00435, 11111111111111111, 1HGCM82633A0O4352",
        "VIN ABCDEFGHJKLMNPRST",
    ),
    "customer-id": (
        "customer id: ⟦C-48291⟧, customerId=⟦48291⟧, Employee ID: **⟦EMP-04331⟧**",
        "Kundennummer ⟦100482⟧, (⟦EMP-29990⟧)",
        "customer 48291, 48291 customers, order id 48291, customer id: C-4, the customer ID is 12 of 48291, TEMP-2999",
    ),
    "uk-nino": (
        "⟦AB123456C⟧, ⟦AB 12 34 56 C⟧, NI number ⟦jg103759a⟧",
        "AB123456E, BG123456A, AB12345C, QQ123456C, XAB123456C",
    ),
    "es-nif": ("⟦12345678Z⟧, DNI ⟦12.345.678-Z⟧, ⟦12345678-Z⟧", "12345678A, 1234567Z, 12345678ZZ, 112345678Z"),
    "es-nie": ("⟦X1234567L⟧, ⟦X-1234567-L⟧", "X1234567A, W1234567L, X1234567"),
    "it-fiscal-code": ("⟦RSSMRA85T10A562S⟧, ⟦RSS MRA 85T10 A562S⟧", "RSSMRA85T10A562T, RSSMRA85T10A56S"),
    "in-pan": ("⟦ABCPE1234F⟧, PAN card: ⟦AAAPL1234C⟧", "ABCDE1234F, ABCPE12345F, ABCPE0000F"),
    "fr-nir": ("⟦1 84 12 76 451 089 46⟧, ⟦295109912611193⟧", "1 84 12 76 451 089 47, 1841276451089461"),
    "sg-nric": ("⟦S1234567D⟧, ⟦F1234567N⟧, NRIC ⟦T1234567J⟧", "S1234567A, A1234567D, S123456D"),
    "cn-ric-x": ("⟦11010519491231002X⟧", "11010519491231003X, 11010519491331002X"),
    "fi-hetu": ("⟦131052-308T⟧", "131052-308U, 321052-308T, 131052-308"),
    "mx-curp": ("⟦BOXW310820HNERXN09⟧", "BOXW310820HNERXN08, BOXW310820HNERXN0"),
    "cl-rut": ("RUT ⟦12.531.909-2⟧", "12.531.909-2, 12.531.909-3"),
    "ie-pps": ("PPS number ⟦6433435F⟧", "6433435F, 6433435E"),
    "identity-document": (
        "passport number ⟦X1234567⟧, Passport No: ⟦123456789⟧, driver's license: ⟦D1234567⟧, DL ⟦S530-0201-2345⟧",
        "national ID number is ⟦48291047⟧, green card number: ⟦A123456789⟧, Führerschein ⟦B072RRE2I55⟧",
        "X1234567, passport to 2024, passport photos cost 12345678901234, medical license: A123456, passport 1234",
    ),
}

# Numbers that share the rule "national-number": (entity, text, near miss).
NATIONAL = (
    ("UK_NHS", "NHS number ⟦943 476 5919⟧", "943 476 5919"),
    ("PL_PESEL", "PESEL ⟦44051401359⟧", "44051401359 or 44051401358"),
    ("IN_AADHAAR", "⟦2341 2341 2346⟧, Aadhaar: ⟦234123412346⟧", "2341 2341 2347, 234123412346"),
    ("DE_TAX_ID", "Steuer-ID: ⟦36 574 261 809⟧", "36574261809"),
    ("AU_TFN", "tax file number ⟦123 456 782⟧", "123 456 782"),
    ("CA_SIN", "SIN: ⟦130 692 544⟧", "130 692 544"),
    ("BR_CPF", "⟦123.456.789-09⟧, CPF ⟦12345678909⟧", "123.456.789-08, 12345678909"),
    ("BE_NN", "⟦85.07.30-033.28⟧, rijksregisternummer ⟦85073003328⟧", "85.07.30-033.29, 85073003328"),
    ("CN_RIC", "⟦110105194912310038⟧", "110105194912310039"),
    ("DK_CPR", "CPR ⟦070761-4285⟧", "070761-4284"),
    ("KR_RRN", "⟦880101-1234568⟧", "880101-1234567, 8801011234568"),
    ("NL_BSN", "BSN ⟦111222333⟧, burgerservicenummer: ⟦1112.22.333⟧", "111222333"),
    ("NO_FNR", "⟦151086 95088⟧, fødselsnummer ⟦15108695088⟧", "151086 95089, 15108695088"),
    ("SE_PNR", "⟦880320-0016⟧, personnummer ⟦19880320-0016⟧", "880320-0017, 881320-0016"),
    ("TR_TCKN", "TC kimlik no ⟦10000000146⟧", "10000000146"),
    ("ZA_ID", "South African ID ⟦7503305044089⟧", "7503305044089"),
    ("GOVERNMENT_ID", "⟦756.9217.0769.85⟧, AHV ⟦7569217076985⟧", "756.9217.0769.86"),
    ("GOVERNMENT_ID", "CNP: ⟦1630615123457⟧, OIB: ⟦33392005961⟧, EGN ⟦7523169263⟧", "1630615123457 33392005961"),
    ("GOVERNMENT_ID", "isikukood ⟦36805280109⟧, AMKA ⟦01013099997⟧", "36805280109"),
    ("GOVERNMENT_ID", "MyKad ⟦770305-02-1234⟧, Thai ID ⟦1234545678781⟧", "770305-02-1234"),
    ("GOVERNMENT_ID", "rodné číslo ⟦710319/2745⟧", "710319/2745"),
)


@functools.cache
def detector(name: str = "") -> PatternDetector:
    """The detector of one rule, or of all."""
    return PatternDetector([BY_NAME[name]] if name else RULES)


def outermost(spans: list[Span]) -> list[tuple[int, int]]:
    """Ranges that are inside no other."""
    ranges = {(span.start, span.end) for span in spans}
    return sorted(r for r in ranges if not any(o != r and o[0] <= r[0] and r[1] <= o[1] for o in ranges))


def unmark(text: str) -> tuple[str, list[str]]:
    return MARKED.sub(r"\1", text), MARKED.findall(text)


@pytest.mark.parametrize(("name", "case"), [(name, case) for name, cases in CASES.items() for case in cases])
def test_rule(name: str, case: str) -> None:
    text, expected = unmark(case)
    spans = find(detector(name), text)
    assert [text[start:end] for start, end in outermost(spans)] == expected
    assert {span.entity for span in spans} <= BY_NAME[name].also | {BY_NAME[name].entity}


@pytest.mark.parametrize(("entity", "case", "near_miss"), NATIONAL)
def test_national_number(entity: str, case: str, near_miss: str) -> None:
    text, expected = unmark(case)
    found = [text[span.start : span.end] for span in find(detector("national-number"), text) if span.entity == entity]
    assert found == expected
    assert entity not in {span.entity for span in find(detector("national-number"), near_miss)}


@pytest.mark.parametrize(
    ("name", "text", "entity"),
    [
        ("us-ssn", "⟦939-79-6410⟧", "US_ITIN"),
        ("us-ssn", "ITIN: ⟦912903456⟧", "US_ITIN"),
        ("bank-account", "routing number ⟦021000021⟧", "ABA_ROUTING_NUMBER"),
        ("bank-account", "checking account ⟦000123456789⟧", "US_BANK_NUMBER"),
        ("bank-account", "IFSC and account number ⟦12345678901⟧", "BANK_ACCOUNT"),
        ("identity-document", "passport no: ⟦123456789⟧", "US_PASSPORT"),
        ("identity-document", "passport no: ⟦C01X00T47⟧", "GOVERNMENT_ID"),
        ("identity-document", "driving licence ⟦MORGA657054SM9IJ⟧", "US_DRIVER_LICENSE"),
        ("national-number", "BSN ⟦111222333⟧", "NL_BSN"),
    ],
)
def test_entity(name: str, text: str, entity: str) -> None:
    text, expected = unmark(text)
    spans = find(detector(name), text)
    assert [(text[span.start : span.end], span.entity) for span in spans] == [(expected[0], entity)]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("credit-card", "card number: 4111 1111 1111 1112"),
        ("iban", "IBAN: DE88 3704 0044 0532 0130 00"),
        ("national-number", "PESEL: 44051401358"),
        ("es-nif", "DNI 12345678A"),
        ("us-ssn", "SSN: 666-12-3456"),
    ],
)
def test_mistyped_value_behind_its_label_has_low_score(name: str, text: str) -> None:
    assert {span.score for span in find(detector(name), text)} == {0.5}


@pytest.mark.parametrize("text", BENIGN)
def test_benign_text_is_left_alone(text: str) -> None:
    assert find(detector(), text) == []


def test_every_rule_has_cases() -> None:
    assert set(CASES) == set(BY_NAME) - {"national-number"}
    assert {entity for entity, *_ in NATIONAL} == {BY_NAME["national-number"].entity, *BY_NAME["national-number"].also}


def test_rules_are_named_once_and_report_known_entities() -> None:
    assert len(BY_NAME) == len(RULES)
    assert {entity for rule in RULES for entity in rule.also | {rule.entity}} <= ENTITIES


# ---- Context ----


@pytest.mark.parametrize(
    ("before", "near", "labels"),
    [
        ("the date of birth is ", True, True),
        ('"dateOfBirth": "', True, True),
        ("DATE_OF_BIRTH=", True, True),
        ("**Dates of birth:** ", False, False),
        ("date of births: ", True, True),
        ("date of birth 1990, hired ", True, False),
        ("update of birth ", False, False),
        ("date of birthing ", False, False),
        ("date of birth" + " and so on" * 5, False, False),
        ("née le ", True, True),
        ("", False, False),
    ],
)
def test_context(before: str, near: bool, labels: bool) -> None:
    context = Context("date of birth", "née", reach=40)
    folded = before.replace("é", "e")  # as the detector hands it over
    assert (context.near(folded), context.labels(folded)) == (near, labels)


def test_context_does_not_see_the_rest_of_a_word_cut_by_its_reach() -> None:
    assert not Context("phone", reach=7).near("saxophone: ")
    assert Context("phone", reach=7).near("a phone: ")


# ---- The detector contract, with all rules at once ----

MIXED = (
    "Ann (ann.b+x@mail.example.org, ann at example dot org) was born 3 May 1990. "
    "Call +1 (415) 555-0132 ext 4 or 415 555 2671; "
    "card 4111 1111 1111 1111 12/27, IBAN DE89 3704 0044 0532 0130 00 ok, SSN 123-45-6789, 2001:db8::1 and 10.0.0.1/8."
)


def test_every_cut() -> None:
    check_every_cut(detector(), MIXED)


VALUES = sorted({value for cases in CASES.values() for case in cases for value in MARKED.findall(case)})
FRAGMENTS = st.one_of(
    st.sampled_from(VALUES), st.sampled_from([" ", ": ", "SSN ", "born ", "-", ".", "1", "call ", "(", "a"])
)


@settings(max_examples=60, deadline=None)
@given(st.lists(FRAGMENTS, max_size=8), st.data())
def test_cuts_do_not_matter(fragments: list[str], data: st.DataObject) -> None:
    text = "".join(fragments)
    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=12))
    check_cuts(detector(), text, cuts)


# ---- Hold and false positives ----


def holds(text: str) -> Iterator[int]:
    session = detector().open(Scope(ChannelKind.REASONING))
    assert session is not None
    received = 0
    for piece in re.findall(r"\s?\w{1,5}|.", text, re.DOTALL):  # about the size of a token
        received += len(piece)
        yield received - session.advance(piece, final=False)[1]


def reasoning(name: str, field: str, count: int) -> list[str]:
    path = REASONING / name
    if not path.exists():
        pytest.skip("the shared training data is not here")
    lines = path.read_text(encoding="utf-8").splitlines()
    return [str(json.loads(line)[field]) for line in random.Random(7).sample(lines, count)]


@pytest.mark.parametrize(
    ("name", "field", "count"), [("gsm8k_train.jsonl", "answer", 150), ("star1.jsonl", "response", 15)]
)
def test_hold_on_benign_text(name: str, field: str, count: int) -> None:
    held = sorted(hold for text in reasoning(name, field, count) for hold in holds(text))
    assert held[len(held) // 2] <= 8
    assert held[len(held) * 99 // 100] <= 40


@pytest.mark.parametrize(
    ("name", "field", "count"), [("gsm8k_train.jsonl", "answer", 2000), ("star1.jsonl", "response", 900)]
)
def test_benign_reasoning_is_hardly_altered(name: str, field: str, count: int) -> None:
    texts = reasoning(name, field, count)
    altered = sum(end - start for text in texts for start, end in outermost(find(detector(), text)))
    assert altered < 0.0005 * sum(map(len, texts))


@pytest.mark.parametrize(
    "unit", ["1", "1 ", "a", "a@", "a.", "1.", "-", "f:", "f::", "+1(", "a at b dot ", "may 1 ", "A1"]
)
def test_hold_is_bounded_on_hostile_text(unit: str) -> None:
    assert max(holds(unit * (2000 // len(unit)))) <= 220
