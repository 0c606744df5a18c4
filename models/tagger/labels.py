"""What the two heads say, in the order of their outputs."""

__all__ = ["ENTITIES", "ENTITY_OF_TAG", "HAZARDS", "TAGS", "tag_index"]

ENTITIES = (
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
    "IP_ADDRESS",
    "MAC_ADDRESS",
    "CREDIT_CARD",
    "BANK_ACCOUNT",
    "CRYPTO",
    "GOVERNMENT_ID",
    "MEDICAL_ID",
    "MEDICAL_CONDITION",
    "VEHICLE_ID",
    "CUSTOMER_ID",
    "SECRET",
)
HAZARDS = (*(f"S{number}" for number in range(1, 15)), "X2")
TAGS = ("O", *(f"{place}-{entity}" for entity in ENTITIES for place in "BIES"))
ENTITY_OF_TAG = (-1, *(index for index in range(len(ENTITIES)) for _ in "BIES"))
"""For each tag the index of its entity, -1 for ``O``."""


def tag_index(place: str, entity: str) -> int:
    """The output of the tag ``place`` (one of B, I, E, S) of ``entity``."""
    return 1 + 4 * ENTITIES.index(entity) + "BIES".index(place)
