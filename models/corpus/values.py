"""Fresh values: for every entity a function of a random source and a locale's Faker, in the shapes people write."""

import base64
import random
import string
from collections.abc import Callable, Sequence
from pathlib import Path

import yaml
from faker import Faker

__all__ = ["HELD_OUT_LOCALES", "LOCALES", "NEGATIVES", "VALUES", "Values"]

_LISTS: dict[str, list[str]] = yaml.safe_load(Path(__file__).with_name("words.yaml").read_text(encoding="utf-8"))
LOCALES = tuple(_LISTS["locales"])
HELD_OUT_LOCALES = frozenset(_LISTS["held_out"])
_WORDS = _LISTS["words"]
_ALNUM = string.ascii_letters + string.digits
_HEX = "0123456789abcdef"
_DIGIT_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "oh")
_PUNCTUATION = "!@#$%&*?-_+"


class Values:
    """One source of values: ``rng`` decides everything, so a seed gives the same values again."""

    def __init__(self, seed: int, locales: Sequence[str]) -> None:
        self.rng = random.Random(seed)  # noqa: S311  # made-up values
        self._fakers = {locale: Faker(locale) for locale in locales}
        for index, faker in enumerate(self._fakers.values()):
            faker.seed_instance(seed + index)

    def faker(self) -> Faker:
        """The Faker of a random locale."""
        return self._fakers[self.rng.choice(list(self._fakers))]

    def text(self, alphabet: str, low: int, high: int | None = None) -> str:
        """Random characters, ``low`` to ``high`` of them."""
        return "".join(self.rng.choices(alphabet, k=self.rng.randint(low, high or low)))

    def shape(self, shape: str) -> str:
        """``#`` a digit, ``%`` a digit from 1, ``?`` a capital, ``^`` a lower-case letter, ``~`` a hex digit."""
        alphabets = {
            "#": string.digits,
            "%": "123456789",
            "?": string.ascii_uppercase,
            "^": string.ascii_lowercase,
            "~": _HEX,
        }
        return "".join(self.rng.choice(alphabets[char]) if char in alphabets else char for char in shape)

    def of(self, *shapes: str) -> str:
        """A value of one of ``shapes``."""
        return self.shape(self.rng.choice(shapes))


def luhn(digits: str) -> str:
    """``digits`` with their check digit (ISO/IEC 7812-1)."""
    total = 0
    for index, digit in enumerate(reversed(digits)):
        doubled = int(digit) * (2 if index % 2 == 0 else 1)
        total += doubled - 9 if doubled > 9 else doubled
    return digits + str(-total % 10)


def _card(values: Values) -> str:
    number = luhn(values.of("4" + "#" * 14, "5%" + "#" * 13, "37" + "#" * 12))
    if len(number) == 15:
        groups = [number[:4], number[4:10], number[10:]]
    else:
        groups = [number[at : at + 4] for at in range(0, 16, 4)]
    return values.rng.choice(("", " ", "-", " ")).join(groups)


def _phone(values: Values) -> str:
    if values.rng.random() < 0.5:
        return str(values.faker().phone_number())
    return values.of(
        "+1 %## %## ####", "(%##) %##-####", "%##-%##-####", "%##.%##.####", "+44 7### ######", "07### ### ###",
        "+49 17# #######", "+33 6 ## ## ## ##", "06 ## ## ## ##", "+34 6## ## ## ##", "+91 9#### #####", "%#########",
        "+61 4## ### ###", "+971 50 ### ####", "+55 11 9####-####", "0## ### ####", "+1%##%######", "ext. ####",
    )  # fmt: skip


def _account(values: Values) -> str:
    kind = values.rng.random()
    if kind < 0.35:
        return str(values.faker().iban())
    if kind < 0.5:
        iban = values.faker().iban()
        return " ".join(iban[at : at + 4] for at in range(0, len(iban), 4))
    return values.of("########", "##########", "############", "####-####-##", "##-##-## ########", "****####", "x####")


def _date_of_birth(values: Values) -> str:
    day = values.faker().date_of_birth(minimum_age=3, maximum_age=95)
    form = values.rng.choice(
        ("%Y-%m-%d", "%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", "%B %d, %Y", "%d %B %Y", "%b %d %Y", "%m-%d-%y", "%d %b %Y")
    )
    return str(day.strftime(form))


def _government_id(values: Values) -> str:
    return values.of(
        "%##-##-####", "%## ## ####", "%########", "?? ## ## ## ?", "??######?", "%## ### ####", "########?",
        "?#######?",
        "#### #### ####", "?????####?", "###########", "# ## ## ## ### ### ##", "?#######", "?########", "??#######",
        "###.###.###-##", "%## ### ###", "??????##?##?###?", "######-####", "######/####", "?###-####-####",
    )  # fmt: skip


def _password(values: Values) -> str:
    rng = values.rng
    words = [rng.choice(_WORDS) for _ in range(4)]
    return rng.choice(
        (
            words[0].title() + values.text(string.digits, 2, 4) + rng.choice(_PUNCTUATION),
            words[0] + values.text(string.digits, 1, 4),
            words[0].title() + rng.choice("@!#_") + str(rng.randint(1990, 2026)),
            "-".join(words[: rng.randint(3, 4)]),
            "".join(word.title() for word in words[:2]) + values.text(string.digits, 2),
            words[0].replace("a", "@").replace("e", "3").replace("o", "0") + values.text(string.digits, 2, 3) + "!",
            values.text(_ALNUM + _PUNCTUATION, 9, 18),
            words[0][0].upper() + "." + words[1] + "_" + values.text(string.digits, 3),
            values.text(string.ascii_lowercase, 5, 8) + values.text(string.digits, 3, 4) + words[2],
        )
    )


def _key(values: Values) -> str:
    rng = values.rng
    prefix = values.text(string.ascii_lowercase, 2, 6)
    return rng.choice(
        (
            values.text(_HEX, 32),
            values.text(_HEX, 40),
            values.text(_ALNUM, 20, 44),
            values.text(_ALNUM + "_-", 24, 64),
            f"{prefix}_{rng.choice(('live', 'test', 'prod', 'pat', 'key'))}_{values.text(_ALNUM, 18, 36)}",
            f"{prefix}-{values.text(_HEX, 24, 40)}",
            f"sk-{values.text(_ALNUM, 32, 48)}",
            f"ghp_{values.text(_ALNUM, 36)}",
            "AKIA" + values.text(string.ascii_uppercase + "234567", 16),
            values.shape("~~~~~~~~-~~~~-4~~~-a~~~-~~~~~~~~~~~~"),
            base64.b64encode(rng.randbytes(rng.choice((16, 24, 32, 48)))).decode(),
            f"xoxb-{values.text(string.digits, 11)}-{values.text(_ALNUM, 24)}",
            "eyJ" + values.text(_ALNUM, 20, 30) + ".eyJ" + values.text(_ALNUM, 30, 60) + "." + values.text(_ALNUM, 43),
        )
    )


def _connection(values: Values) -> str:
    rng = values.rng
    scheme = rng.choice(("postgres", "mysql", "mongodb+srv", "redis", "amqp", "postgresql", "mssql"))
    host = f"{rng.choice(_WORDS)}.{rng.choice(('internal', 'example.net', 'db.local'))}"
    return f"{scheme}://{rng.choice(_WORDS)}:{_password(values).replace('@', '_')}@{host}:{rng.randint(1024, 9999)}/app"


def _username(values: Values) -> str:
    name = values.faker().user_name()
    word = values.rng.choice(_WORDS)
    return values.rng.choice((name, f"@{name}", f"{word}{values.shape('##')}", f"{word}_{name[:5]}", f"x_{word}_x"))


def _url(values: Values) -> str:
    word, name = values.rng.choice(_WORDS), values.faker().user_name()
    return values.rng.choice(
        (
            f"https://www.{word}.com/u/{name}",
            f"https://{word}.io/profile/{name}",
            f"http://{name}.{word}.net",
            f"https://{word}.org/reset?token={values.text(_ALNUM, 20)}",
            f"{word}.me/{name}",
        )
    )


def _address(values: Values) -> str:
    faker = values.faker()
    address = str(values.rng.choice((faker.street_address, faker.address))())
    return address.replace("\n", values.rng.choice((", ", "\n")))


def _age(values: Values) -> str:
    age = values.rng.randint(2, 97)
    return values.rng.choice((f"{age}", f"{age} years old", f"{age}-year-old", f"{age} yo", f"{age}y"))


def _crypto(values: Values) -> str:
    base58 = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
    return values.rng.choice(
        (
            "0x" + values.text(_HEX, 40),
            "bc1q" + values.text("023456789acdefghjklmnpqrstuvwxyz", 38),
            values.rng.choice("13") + values.text(base58, 33),
            "T" + values.text(base58, 33),
        )
    )


def _email(values: Values) -> str:
    faker = values.faker()
    return values.rng.choice(
        (faker.email(), faker.company_email(), f"{faker.user_name()}+{values.shape('^^')}@mail.org")
    )


VALUES: dict[str, Callable[[Values], str]] = {
    "PERSON": lambda values: values.faker().name(),
    "EMAIL_ADDRESS": _email,
    "PHONE_NUMBER": _phone,
    "STREET_ADDRESS": _address,
    "LOCATION": lambda values: values.faker().city(),
    "DATE_OF_BIRTH": _date_of_birth,
    "AGE": _age,
    "NRP": lambda values: values.rng.choice(_LISTS["groups"]),
    "USERNAME": _username,
    "URL": _url,
    "ORGANIZATION": lambda values: values.faker().company(),
    "IP_ADDRESS": lambda values: values.rng.choice((values.faker().ipv4(), values.faker().ipv6())),
    "MAC_ADDRESS": lambda values: values.of("~~:~~:~~:~~:~~:~~", "~~-~~-~~-~~-~~-~~", "~~~~.~~~~.~~~~"),
    "CREDIT_CARD": _card,
    "BANK_ACCOUNT": _account,
    "CRYPTO": _crypto,
    "GOVERNMENT_ID": _government_id,
    "MEDICAL_ID": lambda values: values.of(
        "MRN ########", "MRN-######", "H##########", "INS-###-####", "#######", "P#####-##"
    ),
    "MEDICAL_CONDITION": lambda values: values.rng.choice(_LISTS["conditions"]),
    "VEHICLE_ID": lambda values: values.of(
        "1HG?M######%#####", "W?WZZZ1?Z?W######", "??## ???", "?-?? ####", "%??? ###", "???-####"
    ),
    "CUSTOMER_ID": lambda values: values.of(
        "CUST-#####", "C-########", "ORD-####-####", "EMP####", "####-??-##", "#########", "ACC_######"
    ),
    "SECRET": lambda values: values.rng.choice((_password, _key, _password, _key, _connection))(values),
    "PASSWORD": _password,
    "KEY": _key,
    "CONNECTION": _connection,
    "LASTFOUR": lambda values: values.of("####", "**** ####", "xxxx-####", "####"),
    "MASKED": lambda values: values.of("***-**-####", "####", "%##-##", "%##"),
    "SPOKEN": lambda values: values.rng.choice((" ", " ", "-", ", ")).join(
        values.rng.choice(_DIGIT_WORDS) for _ in range(values.rng.randint(4, 10))
    ),
    "OTP": lambda values: values.of("######", "### ###", "####", "???###"),
}
"""By slot: entities of the classifier, and kinds of secrets that are labelled ``SECRET``."""


NEGATIVES: dict[str, Callable[[Values], str]] = {
    "hash": lambda values: values.rng.choice((values.text(_HEX, 7), values.text(_HEX, 40), values.text(_HEX, 64))),
    "uuid": lambda values: values.shape("~~~~~~~~-~~~~-4~~~-b~~~-~~~~~~~~~~~~"),
    "placeholder": lambda values: values.rng.choice(
        (
            "YOUR_API_KEY",
            "<your-token>",
            "xxxxxxxxxxxx",
            "${DB_PASSWORD}",
            "os.environ['API_KEY']",
            "changeme",
            "REPLACE_ME",
            "********",
            "<password>",
            "{{ secrets.TOKEN }}",
            "process.env.SECRET_KEY",
            "[REDACTED]",
            "sk-...",
            "null",
            "None",
            "example",
            "getpass.getpass()",
            "$TOKEN",
            "your_password_here",
            "<REDACTED>",
        )
    ),
    "version": lambda values: values.of("#.##.#", "v#.#.#", "#.#.#-rc#", "20##.##"),
    "number": lambda values: values.of("###", "#,###", "##,###", "#.###", "##########", "##.#%", "### ### ###", "%#/#"),
    "price": lambda values: values.of("$##.##", "€ ###", "£#,###.##", "$##,###"),
    "date": lambda values: values.of("202#-0%-1#", "1# March 202#", "0%/1#/202#", "Q% 202#", "May %, 201#"),
    "time": lambda values: values.of("1#:##", "202#-0%-1#T1#:##:##Z", "0#:## AM", "17########"),
    "isbn": lambda values: values.of("978-#-##-######-#", "ISBN 0-###-#####-#", "ISSN ####-####"),
    "color": lambda values: values.rng.choice(("#" + values.text(_HEX, 6), values.of("rgb(1##, ##, ##)"))),
    "docs": lambda values: values.rng.choice(("the docs", "RFC 7231", "CVE-2021-44228", "section 4.2.1", "ISO 27001")),
    "public": lambda values: "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA" + values.text(_ALNUM, 40),
    "fingerprint": lambda values: "SHA256:" + values.text(_ALNUM, 43),
    "code": lambda values: values.rng.choice(
        (
            "getUserName()",
            "self._tokenizer",
            "parseConfigFile",
            "max_new_tokens",
            "PasswordField",
            "secretsManager",
            "api_key_header",
            "validateEmailAddress",
            "accountNumberRegex",
            "isPhoneNumber",
            "x_position",
            "test_login",
        )
    ),
    "product": lambda values: values.rng.choice(
        ("the Model X", "Windows 11", "PostgreSQL", "an iPhone 15", "Kubernetes", "Excel", "Photoshop", "the Kindle")
    ),
    "field": lambda values: values.rng.choice(
        ("name", "email", "phone number", "date of birth", "password", "account number", "address", "SSN", "API key")
    ),
}
"""What looks like a value and is none."""
