#!/usr/bin/env python3
"""Makes src/usage/prices.json from two public lists of prices that were downloaded before; see README.md here.

The same files and the same date give the same bytes. What the two lists disagree on is told on standard error.
"""

import argparse
import datetime
import hashlib
import json
import pathlib
import re
import sys
import types
from decimal import ROUND_HALF_EVEN, Decimal

# Our section: the provider in LiteLLM's list, the prefixes it puts before the model's own name, the name in the other.
SECTIONS = {
    "anthropic": (["anthropic"], [""], "anthropic"),
    "azure": (["azure"], ["azure/"], "azure"),
    "cerebras": (["cerebras"], ["cerebras/"], "cerebras"),
    "cohere": (["cohere", "cohere_chat"], ["cohere/", ""], "cohere"),
    "deepseek": (["deepseek"], ["deepseek/", ""], "deepseek"),
    "fireworks": (["fireworks_ai"], ["fireworks_ai/"], "fireworks"),
    "gemini": (["gemini"], ["gemini/"], "google"),
    "groq": (["groq"], ["groq/"], "groq"),
    "mistral": (["mistral"], ["mistral/"], "mistral"),
    "openai": (["openai"], [""], "openai"),
    "perplexity": (["perplexity"], ["perplexity/"], "perplexity"),
    "sambanova": (["sambanova"], ["sambanova/"], None),
    "together": (["together_ai"], ["together_ai/"], "together"),
    "xai": (["xai"], ["xai/"], "x-ai"),
}

# Their lists are long, and most of what is on them is one person's own: only what both lists know.
ONLY_KNOWN_TO_BOTH = {"fireworks", "together"}

# OpenRouter is not on the one list, and the other has nearly a thousand; these are asked for most.
OPENROUTER = {"anthropic", "deepseek", "google", "meta-llama", "mistralai", "openai", "x-ai"}

FIREWORKS = "accounts/fireworks/models/"

MODES = {"chat", "completion", "responses", "embedding"}

FIELDS = {
    "input": "input_cost_per_token",
    "cached": "cache_read_input_token_cost",
    "cache_write": "cache_creation_input_token_cost",
    "cache_write_1h": "cache_creation_input_token_cost_above_1hr",
    "audio_input": "input_cost_per_audio_token",
    "image_input": "input_cost_per_image_token",
    "output": "output_cost_per_token",
    "reasoning": "output_cost_per_reasoning_token",
    "audio_output": "output_cost_per_audio_token",
    "image_output": "output_cost_per_image_token",
}

MTOK_FIELDS = {
    "input": "input_mtok",
    "cached": "cache_read_mtok",
    "cache_write": "cache_write_mtok",
    "cache_write_1h": "cache_write_1h_mtok",
    "audio_input": "input_audio_mtok",
    "image_input": "input_image_mtok",
    "output": "output_mtok",
    "reasoning": "output_reasoning_mtok",
    "audio_output": "output_audio_mtok",
    "image_output": "output_image_mtok",
}

TIER = re.compile(r"_above_(\d+)k_tokens$")

# What is billed by the search as well, and not told with the answer: tokens alone would be a wrong price.
BILLED_BESIDE = re.compile(r"search-preview|search-api|deep-research|-online$")


def written(rate):
    """A rate as text, to a millionth of a dollar, without zeros at the end."""
    rate = rate.quantize(Decimal("0.000001"), rounding=ROUND_HALF_EVEN)
    return format(rate.normalize(), "f") if rate else "0"


def number(value):
    return value if isinstance(value, (int, Decimal)) and not isinstance(value, bool) else None


def of_litellm(entry, section):
    """One entry of LiteLLM's list in our words; none if it has no price by the token."""
    if entry.get("mode") not in MODES:
        return None
    stated = {}
    tiers = {}
    for ours, field in FIELDS.items():
        for name, value in entry.items():
            if not name.startswith(field) or number(value) is None or value < 0:
                continue
            rest = name[len(field):]
            rate = Decimal(value) * 1_000_000
            if rest == "":
                stated[ours] = rate
            elif tier := TIER.fullmatch(rest):
                # Theirs begin at the threshold (xAI) or behind it; ours behind it.
                above = int(tier[1]) * 1000 - (section == "xai")
                tiers.setdefault(above, {})[ours] = rate
    if "input" not in stated or "output" not in stated:
        return None
    # Nothing for nothing is a list's way to say that it does not know.
    if not stated["input"] and not stated["output"]:
        return None
    entry = {"stated": stated, "tiers": tiers, "context": entry.get("max_input_tokens"),
             "max_output": entry.get("max_output_tokens"), "reasoning": bool(entry.get("supports_reasoning"))}
    for limit in ("context", "max_output"):
        if not isinstance(entry[limit], int) or entry[limit] <= 0:
            entry[limit] = None
    return entry


def in_force(prices, day):
    """Of prices that change by date the one of that day; of those that change by the hour the dearest."""
    if not isinstance(prices, list):
        return prices
    dated = [p for p in prices if p.constraint is None or getattr(p.constraint, "start_date", None)]
    dated = [p for p in dated if p.constraint is None or p.constraint.start_date <= day]
    dated.sort(key=lambda p: p.constraint.start_date if p.constraint else datetime.date.min)
    hourly = [p for p in prices if getattr(p.constraint, "start_time", None)]
    candidates = [p.prices for p in dated[-1:] + hourly]
    return max(candidates, key=lambda p: base(p.output_mtok) or 0, default=None)


def base(price):
    return price.base if hasattr(price, "base") else price


def of_genai(model, day):
    """One model of the other list in our words; none if it has no price by the token."""
    prices = in_force(model.prices, day)
    if prices is None:
        return None
    stated = {}
    tiers = {}
    for ours, field in MTOK_FIELDS.items():
        price = getattr(prices, field, None)
        if price is None:
            continue
        stated[ours] = base(price)
        for tier in getattr(price, "tiers", []):
            tiers.setdefault(tier.start, {})[ours] = tier.price
    if not stated and model.id.endswith(":free"):
        stated = {"input": Decimal(0), "output": Decimal(0)}
    elif not stated.get("input") and not stated.get("output"):
        return None
    if "input" not in stated or "output" not in stated:
        return None
    return {"stated": stated, "tiers": tiers, "context": model.context_window, "max_output": None, "reasoning": False}


def differ(one, other):
    """Whether two entries are more than a hundredth apart in what every request pays."""
    def apart(kind):
        a, b = one["stated"][kind], other["stated"][kind]
        return abs(a - b) * 100 > max(a, b)
    return apart("input") or apart("output")


def dearer(one, other):
    weight = lambda entry: entry["stated"]["input"] + entry["stated"]["output"]
    return other if weight(other) > weight(one) else one


def line(entry):
    """One entry as it is written."""
    out = {kind: written(entry["stated"][kind]) for kind in FIELDS if kind in entry["stated"]}
    if entry["tiers"]:
        out["tiers"] = [
            {"above": above, **{kind: written(rates[kind]) for kind in FIELDS if kind in rates}}
            for above, rates in sorted(entry["tiers"].items())
        ]
    for limit in ("context", "max_output"):
        if entry[limit]:
            out[limit] = entry[limit]
    if entry["reasoning"]:
        out["thinks"] = True
    return json.dumps(out, separators=(",", ":"))


def genai_models(folder):
    """The other list, which is a Python module, without the HTTP client that its package asks for."""
    client = types.ModuleType("httpx2")
    client.__getattr__ = lambda name: type(name, (), {})
    sys.modules["httpx2"] = client
    sys.path.insert(0, str(folder))
    from genai_prices.data import providers
    return {provider.id: {model.id: model for model in provider.models} for provider in providers}


def section(name, litellm, genai, day, disputed):
    """The models of one provider."""
    theirs, prefixes, other = SECTIONS[name]
    others = {}
    for model_id, model in genai.get(other, {}).items():
        if name == "fireworks" and "/" not in model_id:
            model_id = FIREWORKS + model_id
        if entry := of_genai(model, day):
            others[model_id] = entry
    models = {}
    for prefix in reversed(prefixes):
        for key, entry in litellm.items():
            model = key[len(prefix):]
            retired = str(entry.get("deprecation_date", "9999")) < day.isoformat()
            foreign = entry.get("litellm_provider") not in theirs or not key.startswith(prefix)
            # A prefix that is none takes only bare names; a region before an Azure name is none of its deployment.
            pathed = "/" in model and (prefix == "" or name in ("azure", "gemini", "perplexity"))
            if foreign or retired or pathed or model.startswith("ft:") or BILLED_BESIDE.search(model):
                continue
            if name in ONLY_KNOWN_TO_BOTH and model not in others:
                continue
            if found := of_litellm(entry, name):
                models[model] = found
    for model, entry in models.items():
        if model in others and differ(entry, others[model]):
            disputed.append((name, model, entry, others[model]))
            kept = dearer(entry, others[model])
            limits = {limit: entry[limit] or others[model][limit] for limit in ("context", "max_output", "reasoning")}
            models[model] = {**kept, **limits}
    return models


def main():
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--litellm", type=pathlib.Path, required=True, help="the wheel's JSON file")
    arguments.add_argument("--litellm-version", required=True)
    arguments.add_argument("--genai", type=pathlib.Path, required=True, help="the folder that has genai_prices/")
    arguments.add_argument("--genai-version", required=True)
    arguments.add_argument("--date", type=datetime.date.fromisoformat, required=True)
    given = arguments.parse_args()

    raw = given.litellm.read_bytes()
    litellm = json.loads(raw, parse_float=Decimal)
    litellm.pop("sample_spec", None)
    genai = genai_models(given.genai)
    disputed = []
    providers = {name: section(name, litellm, genai, given.date, disputed) for name in SECTIONS}
    providers["openrouter"] = {
        model_id: entry
        for model_id, model in genai["openrouter"].items()
        if model_id.split("/")[0] in OPENROUTER and not model.deprecated and not BILLED_BESIDE.search(model_id)
        and (entry := of_genai(model, given.date))
    }
    data = given.genai / "genai_prices" / "data.py"
    header = {
        "schema": 1,
        "version": f"built-in {given.date}",
        "sources": [
            {"package": "litellm", "version": given.litellm_version, "sha256": hashlib.sha256(raw).hexdigest()},
            {"package": "genai-prices", "version": given.genai_version,
             "sha256": hashlib.sha256(data.read_bytes()).hexdigest()},
        ],
        "licence": "MIT (both); the notices are in THIRD_PARTY_NOTICES.md",
        "unit": "US dollars per million tokens",
    }
    lines = [f"  {json.dumps(key)}: {json.dumps(value)}," for key, value in header.items()]
    lines.append('  "providers": {')
    for at, (name, models) in enumerate(sorted(providers.items())):
        lines.append(f"    {json.dumps(name)}: {{")
        rows = [f"      {json.dumps(model)}: {line(entry)}" for model, entry in sorted(models.items())]
        lines.append(",\n".join(rows))
        lines.append("    }" + ("," if at + 1 < len(providers) else ""))
    print("{\n" + "\n".join(lines) + "\n  }\n}")

    for name, model, one, other in disputed:
        pair = [f"{written(e['stated']['input'])}/{written(e['stated']['output'])}" for e in (one, other)]
        print(f"{name}/{model}: {pair[0]} or {pair[1]}", file=sys.stderr)
    counts = {name: len(models) for name, models in sorted(providers.items())}
    print(f"{sum(counts.values())} models, {len(disputed)} disputed: {counts}", file=sys.stderr)


if __name__ == "__main__":
    main()
