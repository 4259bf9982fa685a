"""Model names that ask for a behaviour, so that one can play with the simulator by hand and without a script.

==========================  ==========================================================================================
model                       answers
==========================  ==========================================================================================
``sim-fast``                at once
``sim-slow``                after 0.3 s, first token 0.7 s later, then 20 tokens a second
``sim-long``                at once, with 1,000 tokens
``sim-steady``              first token after 0.2 s, then 50 tokens a second, 250 tokens in all
``sim-tools``               with a call of the first tool offered, and with text once a tool has answered
``sim-reasoning``           with visible reasoning before the text
``sim-cited``               with two cited sources
``sim-cached``              with usage that says half of the input came from a cache
``sim-length``              cut at 16 tokens, finish reason length
``sim-filtered``            with the finish reason of a content filter
``sim-fault-<fault>``       with the fault of that name: ``sim-fault-429``, ``sim-fault-stream_error_mid`` and so on;
                            the names are the values of `behaviour.Fault`, a dash may stand for an underscore
any other                   like ``sim-fast``; ``sim-fault-`` with an unknown fault is answered as an unknown model
==========================  ==========================================================================================
"""

from __future__ import annotations

from pointsman_server.simulator.answer import SIMULATED_REASONING
from pointsman_server.simulator.ask import Ask
from pointsman_server.simulator.behaviour import (
    Behaviour,
    Fault,
    ScriptedCitation,
    ScriptedToolCall,
    UsageOverride,
)

FAULT_PREFIX = "sim-fault-"
_SOUND = Behaviour()
_UNKNOWN_FAULT = Behaviour(fault=Fault.STATUS_404)
_TOOLS = Behaviour(tool_calls=(ScriptedToolCall(),))
_CITATIONS = (
    ScriptedCitation("https://example.com/first", "First simulated source", "doc-0", "simulated answer"),
    ScriptedCitation("https://example.com/second", "Second simulated source", "doc-1", "no language model was asked"),
)
_BY_NAME = {
    "sim-fast": _SOUND,
    "sim-slow": Behaviour(latency_seconds=0.3, first_token_seconds=0.7, tokens_per_second=20),
    "sim-long": Behaviour(output_tokens=1_000),
    "sim-steady": Behaviour(first_token_seconds=0.2, tokens_per_second=50, output_tokens=250),
    "sim-reasoning": Behaviour(reasoning_text=SIMULATED_REASONING),
    "sim-cited": Behaviour(citations=_CITATIONS),
    "sim-length": Behaviour(output_tokens=16, finish_reason="length"),
    "sim-filtered": Behaviour(finish_reason="content_filter"),
}
_BY_FAULT = {fault.value: Behaviour(fault=fault) for fault in Fault}
MODEL_NAMES = (*_BY_NAME, "sim-tools", "sim-cached", *(FAULT_PREFIX + fault.value for fault in Fault))
"""All names with a meaning, as the model lists show them."""


def behaviour_for(ask: Ask) -> Behaviour:
    """The behaviour that the model's name asks for."""
    name = ask.model
    if not name.startswith("sim-"):
        return _SOUND
    if name.startswith(FAULT_PREFIX):
        return _BY_FAULT.get(name.removeprefix(FAULT_PREFIX).replace("-", "_"), _UNKNOWN_FAULT)
    if name == "sim-tools":
        return _TOOLS if ask.tools and not ask.tally.tool_results else _SOUND
    if name == "sim-cached":
        return Behaviour(usage=UsageOverride(cached_input_tokens=ask.input_tokens // 2))
    return _BY_NAME.get(name, _SOUND)
