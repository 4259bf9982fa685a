"""Words and phrases that mean the same, as marks that texts with either have in common."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from pointsman_server.adapters.knowledge.words import stem, words_of

USUAL: tuple[tuple[str, ...], ...] = (
    ("refund", "reimburse", "reimbursement", "money back"),
    ("return", "send back", "bring back", "give back"),
    ("cost", "price", "fee", "charge", "expensive", "how much", "pay"),
    ("pay", "payment"),
    ("free", "no charge", "complimentary", "gratis", "without charge", "free of charge"),
    ("discount", "reduction", "rebate", "cheaper", "price cut", "deal"),
    ("cancel", "terminate", "call off", "end", "stop", "quit"),
    ("delete", "remove", "erase", "get rid of", "close"),
    ("change", "update", "modify", "edit", "alter", "amend", "adjust", "switch"),
    ("buy", "purchase", "order", "acquire"),
    ("deliver", "ship", "dispatch", "send", "arrive", "courier"),
    ("parcel", "package"),
    ("log in", "sign in", "login", "log on"),
    ("sign up", "register", "enrol", "enroll", "create account", "join", "subscribe"),
    ("password", "passcode", "credentials"),
    ("reset", "recover", "forget", "forgot", "forgotten", "lost"),
    ("phone", "telephone", "mobile", "call"),
    ("email", "e mail", "mail"),
    ("contact", "reach", "get in touch", "write to", "talk to", "speak to"),
    ("invoice", "bill", "receipt"),
    ("broken", "defective", "faulty", "damaged", "damage", "not working", "smashed"),
    ("repair", "fix", "mend"),
    ("opening hours", "hours", "open", "opening times", "what time"),
    ("closed", "shut", "close"),
    ("holiday", "vacation", "annual leave", "paid leave", "time off", "days off"),
    ("salary", "wage", "paycheck", "payday"),
    ("employee", "staff", "worker", "personnel"),
    ("place", "location", "address", "located", "situated", "site"),
    ("maximum", "limit", "max", "cap", "quota", "at most", "largest", "biggest", "up to"),
    ("minimum", "least", "min", "smallest", "at least"),
    ("deadline", "latest", "due", "cut off"),
    ("abroad", "international", "overseas", "foreign", "worldwide", "other countries", "another country"),
    ("car", "vehicle", "automobile", "drive"),
    ("park", "parking", "car park"),
    ("photo", "picture", "image", "photograph"),
    ("app", "application", "software"),
    ("problem", "issue", "error", "fault", "bug", "trouble"),
    ("allow", "permit", "permitted", "allowed", "accept"),
    ("forbidden", "prohibited", "banned", "not allowed"),
    ("safe", "secure", "security", "protect"),
    ("start", "begin", "commence", "launch"),
    ("child", "children", "kid", "minor"),
    ("gift", "present"),
    ("voucher", "coupon", "gift card"),
    ("renew", "extend", "prolong", "extension"),
    ("borrow", "lend", "loan"),
    ("reserve", "book", "reservation", "booking"),
    ("ill", "sick", "unwell", "illness", "sickness"),
    ("remote", "from home", "home office", "telework"),
    ("toilet", "restroom", "bathroom", "lavatory"),
    ("wheelchair", "disabled", "disability", "accessible", "step free"),
    ("complain", "complaint", "dissatisfied", "unhappy"),
    ("guarantee", "warranty"),
    ("fast", "quick", "speed", "soon", "quickly"),
    ("trial", "try out", "test"),
    ("data", "information", "details"),
    ("store", "keep", "retain", "save"),
    ("shop", "store", "bookshop"),
    ("big", "large", "size"),
    ("old", "age"),
    ("old", "used", "second hand", "pre owned"),
    ("left", "remaining", "remain", "balance", "leftover"),
    ("travel", "trip", "journey", "voyage"),
    ("submit", "hand in", "turn in", "file"),
    ("recommend", "refer", "referral", "suggest"),
    ("internet", "wifi", "wi fi", "wlan", "network", "online"),
    ("collect", "pick up", "pickup", "fetch"),
    ("lunch", "meal", "food", "eat", "dinner"),
    ("near", "close to", "nearby", "next to", "around"),
    ("bike", "bicycle", "cycle"),
    ("doctor", "physician", "gp"),
    ("lawyer", "attorney", "solicitor"),
    ("cheap", "inexpensive", "affordable"),
    ("expire", "run out", "valid", "expiry", "lapse"),
    ("replace", "exchange", "swap", "substitute", "replacement"),
    ("connect", "link", "pair", "hook up"),
    ("download", "export", "save"),
    ("upload", "import", "add"),
    ("user", "member", "person", "seat", "people"),
    ("company", "firm", "business", "employer", "organisation", "organization"),
    ("colleague", "coworker", "co worker", "teammate"),
    ("boss", "manager", "supervisor", "team lead"),
    ("support", "helpdesk", "help desk", "service desk", "customer service"),
    ("notify", "inform", "tell", "announce", "let know", "notice"),
    ("need", "require", "required", "necessary", "mandatory", "must"),
    ("enable", "activate", "turn on", "switch on", "set up"),
    ("disable", "deactivate", "turn off", "switch off", "unsubscribe", "opt out"),
    ("hire", "recruit", "employ"),
    ("rent", "hire", "lease"),
    ("appointment", "visit", "consultation"),
    ("medicine", "drug", "medication"),
    ("luggage", "baggage", "bag", "suitcase"),
    ("ticket", "pass"),
    ("film", "movie"),
    ("flat", "apartment"),
    ("holiday", "public holiday", "bank holiday"),
    ("weekend", "saturday", "sunday"),
    ("monthly", "per month", "each month", "every month"),
    ("yearly", "annual", "per year", "each year", "every year", "annually"),
    ("weekly", "per week", "each week", "every week", "a week"),
    ("daily", "per day", "each day", "every day", "a day", "every night", "nightly"),
    ("tax id", "tax number", "vat", "vat number"),
    ("team", "colleague", "member", "invite"),
    ("vulnerability", "security issue", "security hole", "exploit"),
    ("outage", "downtime", "uptime", "availability", "unavailable", "disturbance"),
    ("backup", "back up", "backed up"),
    ("restore", "recover", "undelete", "bring back"),
    ("merge", "combine", "join", "unite"),
    ("sso", "single sign on", "saml", "openid"),
    ("storage", "space", "disk", "upload"),
    ("plan", "subscription", "tariff", "tier", "membership"),
    ("api key", "api token", "token", "access key"),
    ("workspace", "organisation", "account"),
    ("country", "region", "location"),
    ("surgery", "practice", "clinic", "hospital"),
    ("vaccination", "vaccine", "jab", "shot"),
    ("prescription", "medication", "refill"),
    ("insurance", "cover", "insured"),
    ("room", "bedroom", "suite"),
    ("breakfast", "morning meal"),
    ("pet", "animal"),
    ("train", "railway", "rail"),
    ("plane", "flight", "fly"),
    ("delay", "late", "delayed"),
    ("teacher", "instructor", "lecturer"),
    ("exam", "examination", "test"),
    ("course", "class", "lesson"),
    ("fine", "penalty"),
    ("rent", "tenancy"),
    ("job", "position", "vacancy", "career", "apply"),
    ("manual", "guide", "instructions", "documentation"),
    ("size", "dimension", "measurement"),
    ("weight", "heavy", "weigh"),
    ("colour", "color"),
    ("centre", "center"),
    ("programme", "program", "scheme"),
)
"""English groups that questions to companies are full of; a policy adds its own."""

_LONGEST_PHRASE = 4


class Thesaurus:
    """Finds what of a text has synonyms."""

    def __init__(self, groups: Iterable[Sequence[str]]) -> None:
        self._marks: dict[tuple[str, ...], set[str]] = {}
        for number, group in enumerate(groups):
            for member in group:
                phrase = tuple(map(stem, words_of(member)))[:_LONGEST_PHRASE]
                if phrase:
                    self._marks.setdefault(phrase, set()).add(f"§{number}")

    def marks_of(self, stems: Sequence[str]) -> Mapping[int, set[str]]:
        """By the place of a word, the marks of all groups with a phrase that begins at it or goes over it."""
        found: dict[int, set[str]] = {}
        for length in range(1, _LONGEST_PHRASE + 1):
            for start in range(len(stems) - length + 1):
                marks = self._marks.get(tuple(stems[start : start + length]))
                for place in range(start, start + length) if marks else ():
                    found.setdefault(place, set()).update(marks or ())
        return found
