"""Entity and hazard names, and the groups a policy may name instead of listing them.

Entities follow Presidio where Presidio has the name; hazards follow the MLCommons AILuminate categories.
"""

from collections.abc import Iterable

__all__ = ["ENTITIES", "GROUPS", "expand", "label"]

GROUPS: dict[str, tuple[str, ...]] = {
    "PII": (
        "PERSON",
        "EMAIL_ADDRESS",
        "PHONE_NUMBER",
        "STREET_ADDRESS",
        "LOCATION",
        "DATE_OF_BIRTH",
        "AGE",
        "NRP",
        "USERNAME",
        "URL",
        "ORGANIZATION",
    ),
    "NETWORK": ("IP_ADDRESS", "MAC_ADDRESS"),
    "FINANCIAL": (
        "CREDIT_CARD",
        "BANK_ACCOUNT",
        "CRYPTO",
        "IBAN_CODE",
        "US_BANK_NUMBER",
        "ABA_ROUTING_NUMBER",
        "SWIFT_CODE",
    ),
    "GOVERNMENT": (
        "GOVERNMENT_ID",
        "US_SSN",
        "US_ITIN",
        "US_PASSPORT",
        "US_DRIVER_LICENSE",
        "UK_NHS",
        "UK_NINO",
        "ES_NIF",
        "ES_NIE",
        "IT_FISCAL_CODE",
        "PL_PESEL",
        "IN_AADHAAR",
        "IN_PAN",
        "DE_TAX_ID",
        "FR_NIR",
        "SG_NRIC_FIN",
        "AU_TFN",
        "CA_SIN",
        "BR_CPF",
        "BE_NN",
        "CN_RIC",
        "DK_CPR",
        "FI_HETU",
        "KR_RRN",
        "MX_CURP",
        "NL_BSN",
        "NO_FNR",
        "SE_PNR",
        "TR_TCKN",
        "ZA_ID",
    ),
    "HEALTH": ("MEDICAL_ID", "MEDICAL_CONDITION", "MEDICAL_LICENSE", "US_NPI"),
    "ASSET": ("VEHICLE_ID", "CUSTOMER_ID"),
    "SECRET": (
        "SECRET",
        "SECRET_API_KEY",
        "SECRET_ACCESS_TOKEN",
        "SECRET_PASSWORD",
        "SECRET_PRIVATE_KEY",
        "SECRET_CONNECTION_STRING",
        "SECRET_WEBHOOK",
        "SECRET_SEED_PHRASE",
        "SECRET_OTP",
    ),
    "PROMPT": ("SYSTEM_PROMPT", "KNOWN_VALUE", "CANARY"),
    "TOOL": ("TOOL_CHANGED",),
    "HAZARD": (
        "VIOLENT_CRIMES",
        "NON_VIOLENT_CRIMES",
        "SEX_RELATED_CRIMES",
        "CHILD_SEXUAL_EXPLOITATION",
        "DEFAMATION",
        "SPECIALIZED_ADVICE",
        "PRIVACY",
        "INTELLECTUAL_PROPERTY",
        "INDISCRIMINATE_WEAPONS",
        "HATE",
        "SUICIDE_SELF_HARM",
        "SEXUAL_CONTENT",
        "ELECTIONS",
        "CODE_INTERPRETER_ABUSE",
        "PROMPT_INJECTION",
    ),
}

ENTITIES: frozenset[str] = frozenset(name for members in GROUPS.values() for name in members)

_OTHER = "OTHER"


def label(entity: str) -> str:
    """What counts and traces call ``entity``, which is empty for faults; one of other detectors' is not named there."""
    return entity if entity in ENTITIES or not entity else _OTHER


def expand(names: Iterable[str]) -> frozenset[str]:
    """Entities named by ``names``, each an entity, a group, or ``ALL``. ``KeyError`` names an unknown one.

    A group that is also an entity (``SECRET``) means the group.
    """
    found: set[str] = set()
    for name in names:
        if name == "ALL":
            found |= ENTITIES
        elif name in GROUPS:
            found.update(GROUPS[name])
        elif name in ENTITIES:
            found.add(name)
        else:
            raise KeyError(name)
    return frozenset(found)
