"""Health: numbers of prescribers and of patients.

* US National Provider Identifier (45 CFR 162.406): ten digits, Luhn over ``80840`` + number. One number in ten passes,
  so it needs a label.
* US DEA registration (21 CFR 1301): two letters, seven digits; (d1 + d3 + d5) + 2 (d2 + d4 + d6) ends in d7.
* Medical licences and patients' record, insurance and prescription numbers have no common format: the label decides.
"""

import re
from collections.abc import Iterator

from stdnum import luhn

from cotguard.detectors.rule import Candidate, Found, Rule
from cotguard.detectors.rules.context import IDENTIFIER, Context, digits, is_joined

__all__ = ["RULES"]

_NPI_LABEL = Context("npi", "national provider", "national provider identifier", "provider identifier", "provider id")
_DEA_LABEL = Context("dea", "dea number", "prescriber", "registrant", "narcotics license")
_LICENSE_LABEL = Context(
    "medical license",
    "medical licence",
    "physician license",
    "physician licence",
    "nursing license",
    "nursing licence",
    "pharmacist license",
    "gmc number",
    "gmc reference",
    "medical registration number",
    reach=45,
)
_PATIENT_LABEL = Context(
    *(
        f"{thing} {noun}"
        for thing in ("patient", "insurance", "medical record", "health plan", "health insurance", "beneficiary")
        for noun in ("id", "identifier", "number", "no", "num", "nr")
    ),
    "mrn",
    "medical record",
    "chart number",
    "health card",
    "health card number",
    "medicare",
    "medicare number",
    "medicaid",
    "medicaid id",
    "medicaid number",
    "mbi",
    "insurance policy number",
    "member id",
    "subscriber id",
    "prescription number",
    "rx number",
    "patientennummer",
    "versichertennummer",
    "krankenversicherungsnummer",
    "numéro de patient",
    "número de paciente",
    "número de historia clínica",
    reach=45,
)
_INSURANCE = Context("insurance", "health", "medical", "patient", "medicare", "medicaid", "plan", "coverage", reach=100)
_SHARED = Context("member id", "subscriber id", reach=45)
_SELF_LABELLED = re.compile("(?:ins|mrn|pat|patient|pt)[-_][0-9]{4,}", re.IGNORECASE)
_DEA = re.compile(r"[ABCDEFGHJKLMPRSTUX][A-Z9][0-9]{7}")


def _npi(candidate: Candidate) -> Iterator[Found]:
    if _NPI_LABEL.near(candidate.before) and luhn.is_valid("80840" + candidate.text):
        yield Found(0, 10, "US_NPI", 0.9)


def _dea(candidate: Candidate) -> Iterator[Found]:
    number = candidate.text.upper()
    d = [int(digit) for digit in number[2:]]
    passes = (d[0] + d[2] + d[4] + 2 * (d[1] + d[3] + d[5])) % 10 == d[6]
    if _DEA.fullmatch(number) and not is_joined(candidate):
        if passes and _DEA_LABEL.near(candidate.before):
            yield Found(0, 9, "MEDICAL_LICENSE", 0.95)
        elif passes and candidate.text == number:
            yield Found(0, 9, "MEDICAL_LICENSE", 0.6)


def _license(candidate: Candidate) -> Iterator[Found]:
    if len(digits(candidate.text)) >= 4 and not is_joined(candidate) and _LICENSE_LABEL.labels(candidate.before):
        yield Found(0, len(candidate.text), "MEDICAL_LICENSE", 0.75)


def _patient(candidate: Candidate) -> Iterator[Found]:
    before = candidate.before
    if len(digits(candidate.text)) < 4 or is_joined(candidate):
        return
    if _PATIENT_LABEL.labels(before) and (not _SHARED.labels(before) or _INSURANCE.near(before)):
        yield Found(0, len(candidate.text), "MEDICAL_ID", 0.8)
    elif _SELF_LABELLED.fullmatch(candidate.text) and _INSURANCE.near(before):
        yield Found(0, len(candidate.text), "MEDICAL_ID", 0.6)


RULES: tuple[Rule, ...] = (
    Rule(name="us-npi", entity="US_NPI", value="[12][0-9]{9}", check=_npi),
    Rule(name="us-dea", entity="MEDICAL_LICENSE", value="[A-Za-z][A-Za-z9][0-9]{7}", check=_dea),
    Rule(name="medical-license", entity="MEDICAL_LICENSE", value=IDENTIFIER, check=_license),
    Rule(name="medical-id", entity="MEDICAL_ID", value=IDENTIFIER, check=_patient),
)
