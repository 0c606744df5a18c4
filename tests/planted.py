"""Planted values for tests: published examples and values made here, each in a sentence of its own.

None of them is anyone's: card numbers and accounts are those that payment companies publish for tests, telephone
numbers and addresses are from reserved ranges, national numbers are documented examples or sums that only have to fit.
"""

from typing import NamedTuple

__all__ = ["PLANTED", "Planted", "carried"]


class Planted(NamedTuple):
    """A value, what it is, and a sentence with ``{}`` in its place."""

    entity: str
    value: str
    carrier: str = "The record says {} , noted."


_PEM = """-----BEGIN EC PRIVATE KEY-----
MHcCAQEEIIrYSSNQFaA2Hwf1duRSxKtLYX5CB04fSeQ6tF1aY/PuoAoGCCqGSM49
AwEHoUQDQgAEPR3tU2Fta9ktY+6P9G0cWO+0kETA6SFs38GecTyudlHz6xvCdz8q
-----END EC PRIVATE KEY-----"""

PLANTED: tuple[Planted, ...] = (
    Planted("EMAIL_ADDRESS", "ann.lee@example.com"),
    Planted("EMAIL_ADDRESS", "o'brien+billing@mail.example.co.uk", "Write to {} about it."),
    Planted("EMAIL_ADDRESS", "john.doe [at] example [dot] org", "He spells it {} on the site."),
    Planted("PHONE_NUMBER", "+1 415 555 2671"),
    Planted("PHONE_NUMBER", "(415) 555-0132", "Call her at {} after six."),
    Planted("PHONE_NUMBER", "+44 20 7946 0958", "The office is on {} most days."),
    Planted("DATE_OF_BIRTH", "1977-04-13", "Date of birth: {}, as the form has it."),
    Planted("IP_ADDRESS", "203.0.113.77"),
    Planted("IP_ADDRESS", "2001:db8:85a3::8a2e:370:7334"),
    Planted("MAC_ADDRESS", "3c:22:fb:9a:10:7e"),
    Planted("CREDIT_CARD", "4111 1111 1111 1111"),
    Planted("CREDIT_CARD", "5500-0000-0000-0004", "Charged to {} yesterday."),
    Planted("IBAN_CODE", "DE89 3704 0044 0532 0130 00"),
    Planted("IBAN_CODE", "GB82WEST12345698765432", "Pay into {} by Monday."),
    Planted("SWIFT_CODE", "DEUTDEFF500", "The SWIFT code: {} , they say."),
    Planted("BANK_ACCOUNT", "WCTX22834914309215", "Account number: {} , to be closed."),
    Planted("CRYPTO", "1BvBMSEYstWetqTFn5Au4m4GFg7xJaNVN2"),
    Planted("CRYPTO", "0x52908400098527886E0F7030069857D2E4169EE7", "Sent to {} in two parts."),
    Planted("CRYPTO", "bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq"),
    Planted("US_SSN", "536-22-8145", "Her SSN is {} in the file."),
    Planted("UK_NINO", "AB123456C", "National insurance number {} , checked."),
    Planted("UK_NHS", "943 476 5919", "NHS number {} , on the letter."),
    Planted("ES_NIF", "12345678Z", "Su DNI es {} , creo."),
    Planted("IT_FISCAL_CODE", "RSSMRA85T10A562S", "Codice fiscale {} , as given."),
    Planted("PL_PESEL", "44051401359", "PESEL {} , as given."),
    Planted("IN_AADHAAR", "2341 2341 2346", "Aadhaar number {} , as given."),
    Planted("IN_PAN", "ABCPE1234F", "The PAN is {} , as given."),
    Planted("DE_TAX_ID", "86095742719", "Steuer-ID {} , as given."),
    Planted("FR_NIR", "2 55 08 14 168 025 38", "Numéro de sécurité sociale {} , as given."),
    Planted("CA_SIN", "130 692 544", "Social insurance number: {} , as given."),
    Planted("BR_CPF", "111.444.777-35", "CPF {} , as given."),
    Planted("AU_TFN", "123 456 782", "The TFN is {} , as given."),
    Planted("US_NPI", "1234567893", "The NPI is {} , as given."),
    Planted("MEDICAL_LICENSE", "BB1388568", "The DEA number is {} , as given."),
    Planted("MEDICAL_ID", "MRN-00482913", "Medical record number: {} , as given."),
    Planted("VEHICLE_ID", "1HGCM82633A004352", "The VIN is {} , as given."),
    Planted("CUSTOMER_ID", "CUST-4820193", "Customer ID: {} , as given."),
    Planted("SECRET_API_KEY", "AKIAIOSFODNN7EXAMPLE"),
    Planted("SECRET_API_KEY", "sk_live_4eC39HqLyjWDarjtT1zdp7dc", "It charges with {} from the job."),
    Planted("SECRET_ACCESS_TOKEN", "ghp_16C7e42F292c6912E7710c838347Ae178B4a", "Cloned with {} once."),
    Planted(
        "SECRET_ACCESS_TOKEN",
        "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
    ),
    Planted("SECRET_PASSWORD", "hunter2!Blue", "The admin password is {} , he typed."),
    Planted(
        "SECRET_CONNECTION_STRING", "postgres://app:Xk29fQpz@db.example.net:5432/prod", "It connects with {} daily."
    ),
    Planted("SECRET_WEBHOOK", "https://hooks.slack.com/services/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"),
    Planted("SECRET_PRIVATE_KEY", _PEM, "The file has {} at its end."),
    Planted(
        "SECRET_SEED_PHRASE",
        "legal winner thank year wave sausage worth useful legal winner thank yellow",
        "It reads: {}. And that is all.",
    ),
    Planted("SECRET_OTP", "481 203", "Your verification code is {} , valid for a minute."),
    Planted("EMAIL_ADDRESS", "ｕｓｅｒ＠example．com", "Full-width: {} , as given."),
    Planted("PHONE_NUMBER", "+81-3-1234-5678", "Ring {} in Tokyo."),
    Planted("DATE_OF_BIRTH", "3 May 1990", "She was born on {} , they say."),
    Planted("IP_ADDRESS", "198.51.100.0/24", "The net {} is theirs."),
    Planted("MAC_ADDRESS", "001a.2b3c.4d5e", "The card has {} , they say."),
    Planted("US_BANK_NUMBER", "000123456789", "The checking account {} is hers."),
    Planted("ABA_ROUTING_NUMBER", "021000021", "The routing number {} is right."),
    Planted("CRYPTO", "7EcDhSYGxXyscszYEp35KHN8vvw3svAuLKTzXwCFLtV", "Solana wallet {} , as given."),
    Planted("US_ITIN", "939-79-6410", "Her ITIN is {} , as given."),
    Planted("US_PASSPORT", "123456789", "Passport no: {} , as given."),
    Planted("US_DRIVER_LICENSE", "S530-0201-2345", "Driver's license: {} , as given."),
    Planted("ES_NIE", "X1234567L", "Su NIE es {} , creo."),
    Planted("SG_NRIC_FIN", "S1234567D", "The NRIC is {} , as given."),
    Planted("BE_NN", "85.07.30-033.28", "Rijksregisternummer {} , as given."),
    Planted("CN_RIC", "11010519491231002X", "The number is {} , as given."),
    Planted("DK_CPR", "070761-4285", "CPR {} , as given."),
    Planted("FI_HETU", "131052-308T", "Henkilötunnus {} , as given."),
    Planted("KR_RRN", "880101-1234568", "The number is {} , as given."),
    Planted("MX_CURP", "BOXW310820HNERXN09", "The CURP is {} , as given."),
    Planted("NL_BSN", "111222333", "BSN {} , as given."),
    Planted("NO_FNR", "151086 95088", "Fødselsnummer {} , as given."),
    Planted("SE_PNR", "880320-0016", "Personnummer {} , as given."),
    Planted("TR_TCKN", "10000000146", "TC kimlik no {} , as given."),
    Planted("ZA_ID", "7503305044089", "South African ID {} , as given."),
    Planted("GOVERNMENT_ID", "756.9217.0769.85", "The AHV number is {} , as given."),
    Planted("SECRET", "qV7xK2mW9tRb4LcZ", "secret: {} , as given."),
    Planted("SECRET_API_KEY", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "The AWS secret access key {} works."),
    Planted("SECRET_ACCESS_TOKEN", "qV7xK2mW9tRb4LcZqV7xK2mW", "Authorization: Bearer {} in the header."),
    Planted("SECRET_PASSWORD", "Tr0ub4dor&3", "DB_PASSWORD={} in the file."),
    Planted(
        "SECRET_CONNECTION_STRING",
        "jdbc:mysql://db.example:3306/shop?user=app&password=k1tt3n",
        "It opens {} daily.",
    ),
)


def carried(planted: Planted) -> str:
    """The sentence with the value in it."""
    return planted.carrier.format(planted.value)
