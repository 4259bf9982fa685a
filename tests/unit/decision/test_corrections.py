"""The corrections of other vendors' tokenizers, against what those vendors reported in recorded traffic."""

from __future__ import annotations

import importlib.util
import sys
from collections import defaultdict
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from pointsman_server.adapters.tokenizers.tiktoken_counter import TiktokenCounter
from pointsman_server.domain.tokenizer import CORRECTIONS, Tokenizer

ROOT = Path(__file__).resolve().parents[3]
TRAFFIC_DIR = ROOT.parent / "shared" / "data" / "provider_traffic"

MEASURED = {
    Tokenizer.O200K: 0.01,
    Tokenizer.CL100K: 0.02,
    Tokenizer.CLAUDE: 0.05,
    Tokenizer.CLAUDE_4: 0.05,
    Tokenizer.GEMINI: 0.06,
    Tokenizer.GROK: 0.03,
    Tokenizer.COHERE: 0.03,
    Tokenizer.LLAMA: 0.03,
    Tokenizer.MISTRAL: 0.03,
    Tokenizer.DEEPSEEK: 0.05,
}
"""How far off the factor may be over all answers of a family together; of the others there are too few."""


@cache
def measuring() -> ModuleType:
    spec = importlib.util.spec_from_file_location("measuring_tokenizers", ROOT / "training" / "tokenizers.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@cache
def samples() -> dict[tuple[Tokenizer, str], list[Any]]:
    if not TRAFFIC_DIR.exists():
        pytest.skip("recorded provider traffic is absent: ../shared/data/provider_traffic (seen from the project root)")
    groups = defaultdict(list)
    for sample in measuring().samples_of_traffic(TRAFFIC_DIR, TiktokenCounter()):
        groups[sample.tokenizer, sample.source].append(sample)
    return groups


@pytest.mark.parametrize("tokenizer", MEASURED)
def test_the_factor_is_that_of_the_recorded_answers(tokenizer: Tokenizer) -> None:
    # Without answers whose provider counted reasoning that it did not show.
    answers = [sample for sample in samples()[tokenizer, "output"] if sample.ratio < 3]
    ratio = sum(sample.reported for sample in answers) / sum(sample.counted for sample in answers)
    assert ratio == pytest.approx(CORRECTIONS[tokenizer].factor, rel=MEASURED[tokenizer])


@pytest.mark.parametrize("tokenizer", [tokenizer for tokenizer in MEASURED if tokenizer is not Tokenizer.O200K])
def test_no_recorded_answer_has_more_tokens_than_the_bound(tokenizer: Tokenizer) -> None:
    answers = [sample for sample in samples()[tokenizer, "output"] if sample.ratio < 3]
    assert max(sample.ratio for sample in answers) <= CORRECTIONS[tokenizer].most


def test_openais_models_report_what_we_count() -> None:
    requests = samples()[Tokenizer.O200K, "input"]
    off = [sample for sample in requests if abs(sample.reported - sample.counted) > 0.01 * sample.counted + 5]
    assert len(requests) > 100
    assert len(off) <= 0.05 * len(requests)
