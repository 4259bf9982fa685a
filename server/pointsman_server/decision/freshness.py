"""Whether an answer depends on what happened lately: the weather, prices, scores, news, who holds an office now."""

from __future__ import annotations

from collections.abc import Sequence

from pointsman_server.domain.plan import TaskType

_ASKS_FOR_FACTS = frozenset((TaskType.LOOKUP, TaskType.CHAT, TaskType.ANALYSIS, TaskType.EXPLAINING))
"""Only these look facts up; a text to be rewritten or translated may speak of today as it likes. So may one that
something is to be found in, unless both the day and the thing are named: then it may as well be a bare question."""

_MOST_WORDS = 24
"""A longer ask brings its own facts, and what it says of the weather or of today is part of a case."""

_ALONE = frozenset(
    """
    latest newest currently nowadays headlines livestream trending weather aktuell aktuelle aktuellen
    aktueller neueste neuesten derzeit momentan wetter actuellement météo dernières actualités
    actualmente últimas últimos noticias attualmente ultime notizie meteo atualmente notícias actueel
    momenteel nieuws сейчас последние новости погода aktualnie najnowsze pogoda güncel 最新 目前 现在
    現在 天气 天氣 天気 최신 현재 날씨 أحدث الآن الطقس
    """.split()  # noqa: SIM905 - a list of many words reads better so
)
_DAYS = frozenset(
    """
    today tonight now tomorrow yesterday current live recent breaking heute morgen gestern jetzt
    aujourd demain hoy ahora mañana oggi adesso hoje agora vandaag nu dzisiaj dziś teraz сегодня bugün
    şimdi anki 今天 今日 오늘 اليوم
    """.split()  # noqa: SIM905 - a list of many words reads better so
)
_MOVING = frozenset(
    """
    forecast temperature rain price prices rate rates stock stocks shares bitcoin score scores
    won wins winning match game news traffic delays flight president minister ceo version release open
    cost costs schedule playing kurs preis kostet präsident spielt gewonnen prix cours président temps
    precio tiempo cotización presidente prezzo tempo preço cotação prijs weer kursy cena курс цена
    президент fiyat dolar euro dollar 価格 株価 股价 价格 汇率 환율 주가
    """.split()  # noqa: SIM905 - a list of many words reads better so
)
"""What changes from day to day. A day word alone does not tell: a plan for today needs no news."""

LAST_KNOWN_YEAR, _YEARS_OF_NEWS = 2025, 5
"""The last year that models can be expected to know. One of the next few in the ask wants a search; a number beyond
those is rarely about news (2048 is a power of two, 2050 a goal)."""


def needs_fresh_facts(words: Sequence[str], task: TaskType) -> bool:
    """Whether these words of the ask want facts that no model can have learned."""
    if len(words) > _MOST_WORDS:
        return False
    distinct = frozenset(words)
    if not distinct.isdisjoint(_MOVING) and not distinct.isdisjoint(_DAYS):
        return task in _ASKS_FOR_FACTS or task is TaskType.EXTRACTION
    if task not in _ASKS_FOR_FACTS:
        return False
    if not distinct.isdisjoint(_ALONE):
        return True
    return any(len(word) == 4 and word.isdecimal() and _is_of_late(int(word)) for word in distinct)


def _is_of_late(year: int) -> bool:
    return LAST_KNOWN_YEAR < year <= LAST_KNOWN_YEAR + _YEARS_OF_NEWS
