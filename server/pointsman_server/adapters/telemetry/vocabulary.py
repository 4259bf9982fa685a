"""Names of spans and attributes: the GenAI conventions where they have one, our own otherwise."""

from __future__ import annotations

import re

from opentelemetry.semconv._incubating.attributes import gen_ai_attributes as gen_ai
from opentelemetry.semconv.attributes.error_attributes import ERROR_TYPE
from opentelemetry.semconv.attributes.http_attributes import HTTP_RESPONSE_STATUS_CODE
from opentelemetry.util.types import AttributeValue

from pointsman_server.domain.catalog import Deployment, Dialect
from pointsman_server.domain.reply import Usage

MODEL_SELECTED = "model_selected"
DECISION_LATENCY = "decision_latency"
"""In seconds."""
FALLBACK_OCCURRED = "fallback_occurred"

REQUEST_ID = "pointsman.request_id"
POLICY_VERSION = "pointsman.policy_version"
DECISION_ID = "pointsman.decision.id"
DECISION_FOLLOWED = "pointsman.decision.followed"
CANDIDATES = "pointsman.decision.candidates"
REJECTIONS = "pointsman.decision.rejections"
TASK = "pointsman.task"
TIER = "pointsman.tier"
TEMPLATE = "pointsman.template"
DEPLOYMENT = "pointsman.deployment"
PROVIDER = "pointsman.provider"
MODEL = "pointsman.model"
PURPOSE = "pointsman.attempt.purpose"
NUMBER = "pointsman.attempt.number"
BECAUSE = "pointsman.attempt.because"
OUTCOME = "pointsman.outcome"
ATTEMPTS = "pointsman.attempts"
COST_MICRO_USD = "pointsman.cost_micro_usd"
CACHE = "pointsman.cache"

SPAN_OF_DECISION = "pointsman.decide"
ERROR = ERROR_TYPE
HTTP_STATUS = HTTP_RESPONSE_STATUS_CODE
OPERATION_NAME = gen_ai.GEN_AI_OPERATION_NAME
PROVIDER_NAME = gen_ai.GEN_AI_PROVIDER_NAME
REQUEST_MODEL = gen_ai.GEN_AI_REQUEST_MODEL
RESPONSE_MODEL = gen_ai.GEN_AI_RESPONSE_MODEL
FINISH_REASONS = gen_ai.GEN_AI_RESPONSE_FINISH_REASONS
TIME_TO_FIRST_CHUNK = gen_ai.GEN_AI_RESPONSE_TIME_TO_FIRST_CHUNK
CHAT = gen_ai.GenAiOperationNameValues.CHAT.value
EMBEDDINGS = gen_ai.GenAiOperationNameValues.EMBEDDINGS.value

_PROVIDER_OF_DIALECT = {
    Dialect.ANTHROPIC_MESSAGES: gen_ai.GenAiProviderNameValues.ANTHROPIC.value,
    Dialect.GEMINI_GENERATE: gen_ai.GenAiProviderNameValues.GCP_GEMINI.value,
    Dialect.OPENAI_CHAT: gen_ai.GenAiProviderNameValues.OPENAI.value,
    Dialect.OPENAI_RESPONSES: gen_ai.GenAiProviderNameValues.OPENAI.value,
    Dialect.COHERE_CHAT: gen_ai.GenAiProviderNameValues.COHERE.value,
}
_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,127}")

Attributes = dict[str, AttributeValue]


def operation_of(deployment: Deployment) -> str:
    """What is asked of a deployment, in the conventions' word."""
    return CHAT if deployment.model.embedding is None else EMBEDDINGS


def of_deployment(deployment: Deployment) -> Attributes:
    """Where a call goes. The conventions name the vendor by the dialect, as instrumented SDKs do."""
    provider, dialect = deployment.provider, deployment.provider.dialect
    return {
        OPERATION_NAME: operation_of(deployment),
        PROVIDER_NAME: provider.label if provider.simulated else _PROVIDER_OF_DIALECT.get(dialect, provider.label),
        REQUEST_MODEL: deployment.model_name,
        DEPLOYMENT: deployment.id,
        PROVIDER: provider.label,
        MODEL: deployment.model.id,
    }


def of_usage(usage: Usage) -> Attributes:
    """The counts that are known."""
    counts = {
        gen_ai.GEN_AI_USAGE_INPUT_TOKENS: usage.input_tokens,
        gen_ai.GEN_AI_USAGE_OUTPUT_TOKENS: usage.output_tokens,
        gen_ai.GEN_AI_USAGE_CACHE_READ_INPUT_TOKENS: usage.cached_input_tokens or None,
        gen_ai.GEN_AI_USAGE_CACHE_CREATION_INPUT_TOKENS: usage.cache_write_input_tokens or None,
        gen_ai.GEN_AI_USAGE_REASONING_OUTPUT_TOKENS: usage.reasoning_tokens or None,
    }
    return {name: count for name, count in counts.items() if count is not None}


def of_answer(model: str, finish_reason: str) -> Attributes:
    """What a provider says of its answer; a model's name that does not look like one is a text and stays out."""
    attributes: Attributes = {FINISH_REASONS: (finish_reason,)}
    if _MODEL_NAME.fullmatch(model):
        attributes[RESPONSE_MODEL] = model
    return attributes
