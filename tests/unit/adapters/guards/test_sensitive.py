# ruff: noqa: RUF001 - characters that look like others are what is tested
from __future__ import annotations

import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kit.properties import examples
from pointsman_server.adapters.guards.sensitive import PatternScanner

SCANNER = PatternScanner()

FOUND = [
    ("write to jane.doe@example.com today", "EMAIL", "jane.doe@example.com"),
    ("john [at] example dot com", "EMAIL", "john [at] example dot com"),
    ("jane.doe at gmail dot com please", "EMAIL", "jane.doe at gmail dot com"),
    ("jane＠example．com", "EMAIL", "jane＠example．com"),
    ("to=user%40example.com&x=1", "EMAIL", "user%40example.com"),
    ("card 4111 1111 1111 1111 exp", "CREDIT_CARD", "4111 1111 1111 1111"),
    ("4111111111111111", "CREDIT_CARD", "4111111111111111"),
    ("pay 4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 now", "CREDIT_CARD", "4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1"),
    ("４１１１ １１１１ １１１１ １１１１", "CREDIT_CARD", "４１１１ １１１１ １１１１ １１１１"),
    ("pay (4111 1111 1111 1111)", "CREDIT_CARD", "4111 1111 1111 1111"),
    ("card:\n4111\n1111\n1111\n1111", "CREDIT_CARD", "4111\n1111\n1111\n1111"),
    ("amex 3782 822463 10005", "CREDIT_CARD", "3782 822463 10005"),
    ("my old visa card 4222222222222", "CREDIT_CARD", "4222222222222"),
    ("IBAN DE89 3704 0044 0532 0130 00 please", "IBAN", "DE89 3704 0044 0532 0130 00"),
    ("gb29nwbk60161331926819", "IBAN", "gb29nwbk60161331926819"),
    ("DE89.3704.0044.0532.0130.00.", "IBAN", "DE89.3704.0044.0532.0130.00"),
    ("host 10.0.0.5:8080", "IP", "10.0.0.5"),
    ("[2001:db8:85a3::8a2e:370:7334]:443", "IP", "2001:db8:85a3::8a2e:370:7334"),
    ("::ffff:192.0.2.128", "IP", "::ffff:192.0.2.128"),
    ("at 00:1A:2B:3C:4D:5E", "MAC", "00:1A:2B:3C:4D:5E"),
    ("001a.2b3c.4d5e", "MAC", "001a.2b3c.4d5e"),
    ("My SSN is 536-22-1234.", "US_SSN", "536-22-1234"),
    ("ssn:536221234", "US_SSN", "536221234"),
    ("call (555) 123-4567 ext. 12", "PHONE", "(555) 123-4567 ext. 12"),
    ("Tel.: +49-30-1234567", "PHONE", "+49-30-1234567"),
    ("0044 7911 123456 is my mobile", "PHONE", "0044 7911 123456"),
    ("טלפון 050-255-8142", "PHONE", "050-255-8142"),
    ('{"to": "(11) 2319-0984"}', "PHONE", "(11) 2319-0984"),
    ("try (201)-582-8501 instead", "PHONE", "(201)-582-8501"),
    ("blocked 210.188.100.48", "IP", "210.188.100.48"),
    ("name,phone\nx,612 345 678", "PHONE", "612 345 678"),
    ("call (030 1234567)", "PHONE", "030 1234567"),
    ("תעודת זהות 123456782", "IL_ID", "123456782"),
    ("943 476 5919 is my NHS number", "UK_NHS", "943 476 5919"),
    ("NINO AB 12 34 56 C", "UK_NINO", "AB 12 34 56 C"),
    ("Steuer-ID 65 929 970 489", "DE_TAX_ID", "65 929 970 489"),
    ("NIR 2 55 08 14 168 025 38", "FR_NIR", "2 55 08 14 168 025 38"),
    ("DNI 12345678Z", "ES_NIF", "12345678Z"),
    ("NIE X1234567L", "ES_NIF", "X1234567L"),
    ("CF RSSMRA85T10A562S", "IT_CF", "RSSMRA85T10A562S"),
    ("Aadhaar card no 234123412346", "IN_AADHAAR", "234123412346"),
    ("PAN ABCPE1234F", "IN_PAN", "ABCPE1234F"),
    ("CPF 529.982.247-25", "BR_CPF", "529.982.247-25"),
    ("SIN 130 692 544", "CA_SIN", "130 692 544"),
    ("マイナンバーは1234 5678 9018です", "JP_MYNUMBER", "1234 5678 9018"),
    ("passport no. C01X00T47", "PASSPORT", "C01X00T47"),
    ("パスポート TK1234567", "PASSPORT", "TK1234567"),
    ("DOB: 03/12/1985", "DATE_OF_BIRTH", "03/12/1985"),
    ("生年月日: 1985年3月12日", "DATE_OF_BIRTH", "1985年3月12日"),
    ("MRN: H0123456", "MRN", "H0123456"),
    ("driver's license number is D1234567", "US_DRIVER_LICENSE", "D1234567"),
    ("1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa", "CRYPTO", "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa"),
    ("bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq", "CRYPTO", "bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq"),
    ("0x52908400098527886E0F7030069857D2E4169EE7", "CRYPTO", "0x52908400098527886E0F7030069857D2E4169EE7"),
    ("Dear Anna Meier, thank you", "PERSON", "Anna Meier"),
    ("signed, MILLER, Anna", "PERSON", "MILLER, Anna"),
    ("私の名前は山田 太郎です。", "PERSON", "山田 太郎"),
    ("I live at 12 Main Street, Springfield, IL 62701.", "ADDRESS", "12 Main Street, Springfield, IL 62701"),
    ("Lindenstraße 5, 10969 Berlin", "ADDRESS", "Lindenstraße 5, 10969 Berlin"),
    ("rue de Rivoli, 75001 Paris", "ADDRESS", "rue de Rivoli, 75001 Paris"),
    ("住所は東京都千代田区1-1です", "ADDRESS", "東京都千代田区1-1"),
    ("password=hunter2!", "PASSWORD", "hunter2!"),
    ("mysql://root:T0pS3cret@localhost/db", "URL_CREDENTIALS", "mysql://root:T0pS3cret@localhost/db"),
    ("Authorization: Basic dXNlcjpwYXNzd29yZDEyMw==", "BEARER_TOKEN", "dXNlcjpwYXNzd29yZDEyMw=="),
    ('"client_secret": "Zx8f_92kdLLs0-asdkjWQe"', "API_KEY", "Zx8f_92kdLLs0-asdkjWQe"),
]

NOT_FOUND = [
    "version 1.2.3.4",
    "pip install foo==1.2.3.4",
    "127.0.0.1 and ::1 are loopback",
    "1.2.3.4.5.6",
    "release-10.1.2.3",
    "10.1.2.3-rc1",
    "meet jo at home dot and",
    "+1234567 points",
    "+999 1234 56789",
    "1zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz",
    "about 3.12 Main Street",
    "meet me at example.com",
    "regex for e-mail: [a-z]+@[a-z]+",
    "git@github.com:org/repo.git",
    "https://user:password@example.com/",
    "std::vector<int> a::b; fe::add",
    "the meeting is at 10:30:45",
    "2024-01-02 03:04:05.678901",
    "ISBN 978-3-16-148410-0",
    "trace 123e4567-e89b-12d3-a456-426614174000",
    "01350651-6718-415b-acef-1e5ebf175ae1, call me",
    "card 4111 1111 1111 1112",
    "the year 2221 1659 5828 4334 1",
    "IBAN DE89 3704 0044 0532 0130 01",
    "DE12 and GB34 and FR56 are short",
    "ssn 000-12-5529 is not valid",
    "order 123456789",
    "phone model SM-G662B/DS, build 9139651346",
    "timeout=300 retries=5 phone_home=false t=5395960658438",
    "invoice 2025-11140293 paid, call it a day",
    "1 2 3 4 5 6 7 8 9 10 11 12",
    "call 1111111111",
    "AA:BB:CC:DD:EE:FF:00:11 is no MAC",
    "0000.0000.0000",
    "1111.2222.3333",
    "12345678A",
    "GB123456A",
    "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNb",
    "bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdp",
    "AKIAIOSFODNN7EXAMPLE",
    "sk-XXXXXXXXXXXXXXXXXXXX",
    "password: string; token: str",
    'api_key = os.environ["API_KEY"]',
    'password = "<your password>"',
    "Bearer authentication is described below",
    "-----BEGIN PRIVATE KEY-----",
    "name: get_weather",
    "Hi there, how are you",
    "passport photo please",
    "born in a small town",
]


@pytest.mark.parametrize(("text", "kind", "value"), FOUND)
def test_it_is_found_with_its_exact_place(text: str, kind: str, value: str) -> None:
    start = text.index(value)
    assert (start, start + len(value), kind) in SCANNER.scan(text)


@pytest.mark.parametrize("text", NOT_FOUND)
def test_it_only_looks_like_it(text: str) -> None:
    assert SCANNER.scan(text) == []


def test_two_ibans_in_a_sentence_are_both_found() -> None:
    text = "from FR46 3008 6334 957S DH4O VDM9 W95 to IT66 Y626 4356 783N Z7L8 80UG CUJ."
    assert [(text[start:end], kind) for start, end, kind in SCANNER.scan(text)] == [
        ("FR46 3008 6334 957S DH4O VDM9 W95", "IBAN"),
        ("IT66 Y626 4356 783N Z7L8 80UG CUJ", "IBAN"),
    ]


def test_a_value_keeps_its_invisible_characters() -> None:
    text = "card 4111\u200b 1111\u200b 1111\u200b 1111, thanks"
    assert [text[start:end] for start, end, _ in SCANNER.scan(text)] == ["4111\u200b 1111\u200b 1111\u200b 1111"]


def test_a_private_key_is_taken_to_its_end_and_a_cut_one_as_far_as_it_goes() -> None:
    body = "MIIEpAIBAAKCAQEA7bq3\n" * 5
    whole = f"-----BEGIN RSA PRIVATE KEY-----\n{body}-----END RSA PRIVATE KEY-----"
    assert SCANNER.scan(f"x {whole} y") == [(2, 2 + len(whole), "PRIVATE_KEY")]
    cut = f"-----BEGIN PRIVATE KEY-----\n{body}".rstrip()
    assert SCANNER.scan(cut) == [(0, len(cut), "PRIVATE_KEY")]


def test_of_two_claims_on_a_place_the_surer_one_stays() -> None:
    text = "postgres://app:Ir3dXmnfClxNBu@db.internal.example:5432/prod"
    assert SCANNER.scan(text) == [(0, len(text), "URL_CREDENTIALS")]


def test_a_card_in_a_long_table_of_numbers_is_found() -> None:
    table = "12 34 56 78 " * 40
    found = SCANNER.scan(f"{table}4111 1111 1111 1111 {table}")
    assert found == [(len(table), len(table) + 19, "CREDIT_CARD")]


def test_many_phones_are_found_without_asking_for_each() -> None:
    text = "".join(f"x;0{171_000_0000 + number}\n" for number in range(300))
    assert len(SCANNER.scan(text)) == 300


def test_names_beyond_a_page_full_are_left_out() -> None:
    found = SCANNER.scan("Dr. Meier, " * 20_000)
    assert 1_000 < len(found) < 20_000


PIECES = st.sampled_from(
    ["+49 30 1234567", "call 555-123-4567", "\u200b", "４１１１", "DE89 3704 0044 0532 0130 00", "john [at] x dot com",
     "…", "Dr. ", "name: ", "12 ", "\ud800", "½", " שמי ", "住所は1丁目", "-----BEGIN PRIVATE KEY-----", "born ",
     "1.1.1990", "sk-", "a@b.co", "::", "fe80::1", "名前は", "\n", "password=", "(", ".", "passport no ",
     "4 1 1 1 1 1 1 1"]
)  # fmt: skip
MIXED = st.lists(PIECES | st.text(alphabet=st.characters(), max_size=4), max_size=12).map("".join)


@given(st.text(alphabet=st.characters(), max_size=80) | MIXED)
@examples(400)
def test_findings_stand_in_order_inside_the_text_and_never_overlap(text: str) -> None:
    last = 0
    for start, end, kind in SCANNER.scan(text):
        assert last <= start < end <= len(text)
        assert kind.isupper()
        last = end


@given(MIXED)
@examples(100)
def test_the_same_text_gives_the_same_findings(text: str) -> None:
    assert SCANNER.scan(text) == PatternScanner().scan(text)


def test_no_sign_is_missed_among_everything_at_once() -> None:
    """The set of signs must name every rule, also for texts that strain it."""
    draw = random.Random(7)
    noise = "".join(draw.choices([chr(code_point) for code_point in range(32, 127)], k=200_000))
    found = SCANNER.scan(f"{noise} jane.doe@example.com {noise}")
    assert "jane.doe@example.com" in [f"{noise} jane.doe@example.com {noise}"[start:end] for start, end, _ in found]


def _seconds(text: str) -> float:
    spent = []
    for _ in range(3):
        before = time.thread_time()
        SCANNER.scan(text)
        spent.append(time.thread_time() - before)
    return min(spent)


@pytest.mark.parametrize(
    "piece",
    ["a.", "a@", "7", ".", "1.", "1 2 3 ", "12 34 ", "4111 ", "a\u200b", "\u200b", "ab:", "DE12 ", "Dr. A ", "eyJ",
     "a://b:c", "-----BEGIN PRIVATE KEY-----", "passport A1 ", "(", "call 0171 2345678\n", "x dot ", "password=a",
     "\ud800", "rue A "],
)  # fmt: skip
def test_time_grows_no_faster_than_the_text(piece: str) -> None:
    short, long = (piece * (size // len(piece)) for size in (20_000, 200_000))
    assert _seconds("a@" + long) < 40 * max(_seconds("a@" + short), 0.000_5)
