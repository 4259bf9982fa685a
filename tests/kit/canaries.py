"""Sensitive strings that no real person has, one of each kind, in the sentences that they come in."""

from __future__ import annotations

from typing import NamedTuple


class Canary(NamedTuple):
    """A value with its kind; `sentence` has a gap for it."""

    kind: str
    value: str
    sentence: str

    @property
    def said(self) -> str:
        """The sentence with the value."""
        return self.sentence.format(self.value)


CANARIES = (
    Canary("PERSON", "Ottilie Brandwein", "My name is {}."),
    Canary("ADDRESS", "48 Larkspur Avenue, Springfield, IL 62704", "Please send it to {}."),
    Canary("EMAIL", "ottilie.brandwein@quarrymail.net", "Write to {} today."),
    Canary("PHONE", "+44 20 7946 0958", "Call me at {} after six."),
    Canary("CREDIT_CARD", "4539 1488 0343 6467", "Charge my card {} for it."),
    Canary("IBAN", "DE89 3704 0044 0532 0130 00", "The IBAN is {} as before."),
    Canary("US_SSN", "536-90-4399", "My social security number is {} by the way."),
    Canary("IP", "81.2.69.142", "The server at {} does not answer."),
    Canary("MAC", "3C:22:FB:9A:41:07", "Its MAC address is {} on the label."),
    Canary("IL_ID", "123456782", "My Teudat Zehut number is {} there."),
    Canary("MRN", "MRN-48392107", "The patient with medical record number {} came back."),
    Canary("DATE_OF_BIRTH", "1975-03-14", "Date of birth: {} in the file."),
    Canary("UK_NINO", "AB123456C", "My national insurance number is {} now."),
    Canary("UK_NHS", "943 476 5919", "The NHS number is {} on the letter."),
    Canary("DE_TAX_ID", "86095742719", "Meine Steuer-ID ist {} seit Jahren."),
    Canary("FR_NIR", "2 95 10 99 126 111 93", "Mon num\u00e9ro de s\u00e9curit\u00e9 sociale est {} ici."),
    Canary("ES_NIF", "54362315K", "Mi NIF es {} desde siempre."),
    Canary("IT_CF", "RCCMNL83S18D969H", "Il mio codice fiscale \u00e8 {} da sempre."),
    Canary("IN_AADHAAR", "2341 2341 2346", "My Aadhaar number is {} as printed."),
    Canary("IN_PAN", "ACUPA7085R", "The PAN card says {} there."),
    Canary("JP_MYNUMBER", "6214 9832 0257", "My Number (individual number) is {} here."),
    Canary("BR_CPF", "390.533.447-05", "Meu CPF \u00e9 {} mesmo."),
    Canary("CA_SIN", "123 456 782", "My Canadian SIN is {} on file."),
    Canary("PASSPORT", "C01X00T47", "My passport number is {} this year."),
    Canary("CRYPTO", "1BoatSLRHtKNngkdXEeobR76b53LETtpyT", "Send it to my bitcoin wallet {} please."),
    Canary(
        "OPENAI_KEY",
        "sk-proj-" + "Vb7Qm2Zt9LxW4kRp6HsY" + "T3BlbkFJ" + "u8Dn1Fg5JcXe0AqKzMw2",
        "export OPENAI_API_KEY={}",
    ),
    Canary("AWS_ACCESS_KEY", "AKIA" + "Q7ZXC2VBN5MK9LJH", "aws_access_key_id = {}"),
)
