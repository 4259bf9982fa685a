"""What a simulated provider can be told to do: the vocabulary of scripts.

Everything is a frozen value; nothing here knows about HTTP or about a dialect's words.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import Enum
from fnmatch import fnmatchcase
from typing import Any


class Dialect(Enum):
    """A wire language the simulator speaks."""

    ANTHROPIC = "anthropic_messages"
    GEMINI = "gemini_generate"
    OPENAI_CHAT = "openai_chat"
    OPENAI_RESPONSES = "openai_responses"
    COHERE = "cohere_chat"


class Fault(Enum):
    """One way to go wrong. `sim-fault-<value>` as model name asks for it without a script."""

    # Error statuses, with the dialect's own error body.
    STATUS_400 = "400"
    STATUS_400_CONTEXT = "400_context"
    STATUS_400_KEY = "400_key"
    """The key is refused with status 400, as Gemini does."""
    STATUS_400_MODEL = "400_model"
    """The model is unknown with status 400, as OpenAI Responses does."""
    STATUS_401 = "401"
    STATUS_403 = "403"
    STATUS_404 = "404"
    STATUS_413 = "413"
    STATUS_429 = "429"
    """Come back in two seconds, said the dialect's own way (a header; for Gemini inside the body)."""
    STATUS_429_MILLISECONDS = "429_milliseconds"
    STATUS_429_DATE = "429_date"
    """`retry-after` is an HTTP date two to three seconds ahead."""
    STATUS_429_PAST_DATE = "429_past_date"
    STATUS_429_DAY = "429_day"
    STATUS_429_NEGATIVE = "429_negative"
    STATUS_429_GARBAGE = "429_garbage"
    STATUS_429_SILENT = "429_silent"
    """No hint when to come back."""
    STATUS_429_QUOTA = "429_quota"
    STATUS_500 = "500"
    STATUS_502 = "502"
    """An HTML page of a proxy."""
    STATUS_503 = "503"
    STATUS_504 = "504"
    STATUS_529 = "529"
    REDIRECT_302 = "302"

    # A 200 whose body is not what it should be; sent in place of a stream as well.
    HTML_200 = "html_200"
    EMPTY_200 = "empty_200"
    TRUNCATED_JSON = "truncated_json"
    JSON_NULL = "json_null"
    JSON_ARRAY = "json_array"
    TWO_DOCUMENTS = "two_documents"
    BAD_UTF8 = "bad_utf8"
    DEEP_JSON = "deep_json"
    SHORT_CONTENT_LENGTH = "short_content_length"
    """`content-length` announces half of the body; all of it is sent, then the connection closes."""
    LONG_CONTENT_LENGTH = "long_content_length"
    """`content-length` announces more than comes before the connection closes."""
    GZIP_LIE = "gzip_lie"
    """`content-encoding: gzip` on plain text; for a stream too."""
    ERROR_BODY_200 = "error_body_200"
    WRONG_CONTENT_TYPE = "wrong_content_type"
    """A sound answer labelled text/plain; for a stream too."""
    LEADING_WHITESPACE = "leading_whitespace"
    """A sound JSON answer after blank lines, as some providers send to keep the connection alive."""

    # A well-formed answer with nothing in it.
    EMPTY_CHOICES = "empty_choices"
    NULL_CONTENT = "null_content"
    EMPTY_CONTENT_STOP = "empty_content_stop"
    BLOCKED_PROMPT = "blocked_prompt"
    """The prompt is refused with status 200: Gemini sends no candidate, the others finish without content."""

    # Streams that fail. Whole answers are not touched unless said otherwise.
    STREAM_ERROR_FIRST = "stream_error_first"
    STREAM_ERROR_MID = "stream_error_mid"
    STREAM_RESET_MID = "stream_reset_mid"
    """Connection reset after half of the answer; for a whole answer too."""
    STREAM_CLOSE_MID = "stream_close_mid"
    """Connection closed after half of the answer without a proper HTTP end; for a whole answer too."""
    STREAM_EOF_WITHOUT_FINISH = "stream_eof_without_finish"
    """A proper HTTP end after half of the answer, without finish reason or end marker."""
    STREAM_BAD_JSON_MID = "stream_bad_json_mid"
    TEN_MEGABYTE_LINE = "ten_megabyte_line"

    # Silence. These last until the caller gives up.
    STALL_HEADERS = "stall_headers"
    STALL_BEFORE_FIRST_TOKEN = "stall_before_first_token"  # noqa: S105 - a name, not a secret
    """Headers and opening events, then nothing; for a whole answer: headers, then nothing."""
    STALL_MID_STREAM = "stall_mid_stream"
    """Half of the answer, then nothing; for a whole answer too."""
    PINGS_ONLY = "pings_only"
    """Opening events, then pings for ever; a whole answer is sent as it should be."""
    RESET_ON_ACCEPT = "reset_on_accept"
    """Connection reset once the request is read, before any byte of a response."""

    # Swapped framings; the content is sound.
    JSON_INSTEAD_OF_STREAM = "json_instead_of_stream"
    STREAM_INSTEAD_OF_JSON = "stream_instead_of_json"

    # Odd but legal streams: the answer is complete and must be read. Whole answers are not touched.
    STREAM_OTHER_LINE_ENDS = "stream_crlf"
    """CRLF where the dialect uses LF; LF where it uses CRLF."""
    STREAM_COMMENTS = "stream_comments"
    STREAM_BOM = "stream_bom"
    STREAM_DATA_AFTER_DONE = "stream_data_after_done"
    STREAM_NO_DONE = "stream_no_done"
    """Without the `[DONE]` line of the dialects that have one; finish reason and usage are there."""
    STREAM_EMPTY_CHOICES_FIRST = "stream_empty_choices_first"
    """OpenAI chat: a first chunk without choices and without names, as Azure sends."""
    STREAM_MANY_PINGS = "stream_many_pings"
    """500 pings before the first token."""
    STREAM_SPLIT_BYTES = "stream_split_bytes"
    """Sent one to three bytes at a time, so that characters and lines are cut."""


class Finish(Enum):
    """Why the answer ends; every dialect has its own words for these."""

    STOP = "stop"
    LENGTH = "length"
    TOOL_CALLS = "tool_calls"
    STOP_SEQUENCE = "stop_sequence"
    CONTENT_FILTER = "content_filter"
    REFUSAL = "refusal"


Count = int | float | str | None
"""A token count to be put on the wire, however wrong; None means: as counted."""


@dataclass(frozen=True, slots=True)
class UsageOverride:
    """Token counts to report in place of the counted ones, put on the wire as they are: negative, absurd, text, NaN.

    `input_tokens` counts cached tokens in, `output_tokens` counts reasoning in; a dialect that reports them apart
    subtracts, unless the numbers make no sense. `missing` leaves usage out altogether.
    """

    input_tokens: Count = None
    cached_input_tokens: Count = None
    cache_write_input_tokens: Count = None
    output_tokens: Count = None
    reasoning_tokens: Count = None
    missing: bool = False

    @property
    def has_nan(self) -> bool:
        """Whether any count is NaN, which JSON proper cannot say."""
        return any(value != value for value in (getattr(self, item.name) for item in fields(self)))


@dataclass(frozen=True, slots=True)
class ScriptedToolCall:
    """A tool call to answer with.

    `name` "" means the first tool offered. `arguments` None means: made to fit the tool's schema; a string is sent
    as it is, even when it is not JSON.
    """

    name: str = ""
    arguments: Mapping[str, Any] | str | None = None


@dataclass(frozen=True, slots=True)
class ScriptedCitation:
    """A source to cite. Indices are code points of the answer; when -1, the place of `quoted_text`, or all of it."""

    url: str = ""
    title: str = ""
    document_id: str = ""
    quoted_text: str = ""
    start_index: int = -1
    end_index: int = -1


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How to answer one call. The default is a sound, immediate answer derived from the request.

    A stream waits `latency_seconds` before its headers, then `first_token_seconds` before the first piece of content,
    then keeps to `tokens_per_second` (0: as fast as possible). A whole answer waits for the sum before its headers.
    A token is four characters.

    `finish_reason`: a `Finish` value is put into the dialect's word, anything else is sent as it is.
    `reported_model`: the name the answer gives, "" for the one asked. `headers` go onto any response with a status.
    `ping_interval_seconds` is the pause between pings of `Fault.PINGS_ONLY`.
    """

    latency_seconds: float = 0.0
    first_token_seconds: float = 0.0
    tokens_per_second: float = 0.0
    reply_text: str | None = None
    output_tokens: int | None = None
    usage: UsageOverride = UsageOverride()
    finish_reason: str | None = None
    tool_calls: tuple[ScriptedToolCall, ...] = ()
    reasoning_text: str | None = None
    citations: tuple[ScriptedCitation, ...] = ()
    fault: Fault | None = None
    reported_model: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    ping_interval_seconds: float = 0.2

    def __post_init__(self) -> None:
        for name in ("latency_seconds", "first_token_seconds", "tokens_per_second"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be 0 or more")
        if not 0.001 <= self.ping_interval_seconds < float("inf"):
            raise ValueError("ping_interval_seconds must be 0.001 or more")
        if self.output_tokens is not None and self.output_tokens < 1:
            raise ValueError("output_tokens must be 1 or more; to answer with nothing, set reply_text to an empty text")
        if self.output_tokens is not None and self.reply_text is not None:
            raise ValueError(
                "reply_text and output_tokens contradict each other; to report another count, set usage.output_tokens"
            )


@dataclass(frozen=True, slots=True)
class Rule:
    """Calls that fit get `behaviour`.

    `model` is a glob, case counts. `dialect` None fits all. Of the calls that fit so far, counted from 1, only those
    from `first_call` to `last_call` (None: no end) get the behaviour; the others go on to the next rule.
    """

    behaviour: Behaviour
    model: str = "*"
    dialect: Dialect | None = None
    first_call: int = 1
    last_call: int | None = None

    def __post_init__(self) -> None:
        if self.first_call < 1:
            raise ValueError("calls are counted from 1")
        if self.last_call is not None and self.last_call < self.first_call:
            raise ValueError("the last call must not come before the first")

    def fits(self, dialect: Dialect, model: str) -> bool:
        """Whether a call belongs to this rule, whichever number it has."""
        return (self.dialect is None or self.dialect is dialect) and fnmatchcase(model, self.model)

    def covers(self, number: int) -> bool:
        """Whether the `number`-th call that fits gets the behaviour."""
        return self.first_call <= number and (self.last_call is None or number <= self.last_call)


@dataclass(frozen=True, slots=True)
class Script:
    """Rules, the first that fits wins. Equal seeds give equal response ids for equal sequences of calls."""

    rules: tuple[Rule, ...] = ()
    seed: int = 0
