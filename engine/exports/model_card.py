"""The model card: what a result is, what it was made from and how, and what it is not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from engine.contract.method_settings import MethodKind
from engine.exports.run_facts import RunFacts
from engine.memory.units import gib

Form = Literal["model", "adapter", "merged", "gguf"]

_NAMES: dict[MethodKind, str] = {
    "qft": "QFT",
    "qlora": "QLoRA",
    "lora": "LoRA",
    "lomo": "LOMO",
    "adalomo": "AdaLomo",
    "full": "Full tuning",
}
_DOES: dict[MethodKind, str] = {
    "qft": "Every weight was trained. While it was trained it was kept in 8-bit codes; these files "
    "hold the values that the codes stand for.",
    "qlora": "The base was frozen in 4 bits and low-rank matrices beside its linear layers were "
    "trained.",
    "lora": "The base was frozen in bfloat16 and low-rank matrices beside its linear layers were "
    "trained.",
    "lomo": "Every weight was trained, by plain gradient descent inside the backward pass.",
    "adalomo": "Every weight was trained, by adaptive steps inside the backward pass.",
    "full": "Every weight was trained, with an optimizer that keeps its state for each of them.",
}
_MERGED = {
    "lora": "The matrices are added to the base's weights here.",
    "qlora": "The matrices are added here to the weights that the 4-bit codes stand for, which is "
    "what they were trained beside; the base's own weights are other ones.",
}
_TALK = (
    'chat = [{"role": "user", "content": "Hello!"}]',
    "tokens = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True, "
    'return_tensors="pt")',
    "print(tokenizer.decode(model.generate(**tokens, max_new_tokens=100)[0]))",
)
_USE_MODEL = (
    "from transformers import AutoModelForCausalLM, AutoTokenizer",
    'tokenizer = AutoTokenizer.from_pretrained(".")',
    'model = AutoModelForCausalLM.from_pretrained(".")',
    *_TALK,
)
_USE_ADAPTER = (
    "from peft import AutoPeftModelForCausalLM",
    "from transformers import AutoTokenizer",
    'tokenizer = AutoTokenizer.from_pretrained(".")',
    'model = AutoPeftModelForCausalLM.from_pretrained(".")',
    *_TALK,
)
_USE_FOUR_BIT_ADAPTER = (
    "import json",
    "from peft import AutoPeftModelForCausalLM",
    "from transformers import AutoTokenizer, BitsAndBytesConfig",
    'tokenizer = AutoTokenizer.from_pretrained(".")',
    'form = BitsAndBytesConfig(**json.load(open("quantization_config.json")))',
    'model = AutoPeftModelForCausalLM.from_pretrained(".", quantization_config=form)',
    *_TALK,
)
_USE_GGUF = """\
llama-cli -m {file} -cnv
ollama create {name} -f Modelfile
ollama run {name}"""


@dataclass(frozen=True)
class MergeError:
    """How far the logits of a merged model are from those of base and adapter, on some prompts.

    Attributes:
        num_prompts: Of how many prompts.
        largest: The largest difference of two logits.
        scale: The largest logit, for comparison.
        same_word: Share of the tokens after which both find the same next one likeliest.
    """

    num_prompts: int
    largest: float
    scale: float
    same_word: float

    def sentence(self) -> str:
        """For people."""
        return (
            f"On {self.num_prompts} prompts the logits of this merged model differ from those of "
            f"base and adapter by at most {self.largest:.2g}, where the largest logit is "
            f"{self.scale:.3g}; after {self.same_word:.1%} of the tokens both find the same next "
            "one likeliest."
        )


@dataclass(frozen=True)
class CardForm:
    """What the card goes with.

    Attributes:
        form: Which kind of folder it lies in.
        weights: The format of the weights, for people.
        merge: Of a merged model.
        notes: Limits of this very form, a sentence each.
        file: Of a GGUF.
    """

    form: Form
    weights: str
    merge: MergeError | None = None
    notes: Sequence[str] = field(default=())
    file: str = ""


def model_card(facts: RunFacts, form: CardForm) -> str:
    """README.md, with the front matter that the model hub reads; nothing of the data's text."""
    parts = [
        _front_matter(facts, form),
        f"# {facts.name}\n",
        f"{_plain(facts.base)}, tuned on {_plain(facts.data)} with "
        f"{_NAMES[facts.spec.method.kind]}.\n",
        "## What was done to the weights\n",
        _weights(facts, form),
        "## Data\n",
        _data(facts),
        "## Result\n",
        _result(facts),
        "## Settings\n",
        _settings(facts),
        "## Limits\n",
        _limits(facts, form),
        "## Use\n",
        _use(facts, form),
    ]
    return "\n".join(parts)


def _front_matter(facts: RunFacts, form: CardForm) -> str:
    library = {"adapter": "peft", "gguf": "gguf"}.get(form.form, "transformers")
    lines = ["---", f"library_name: {library}", "pipeline_tag: text-generation"]
    if "/" in facts.base:
        lines.append(f"base_model: {facts.base}")
    if facts.licence:
        lines.append(f"license: {facts.licence}")
    return "\n".join([*lines, "---", ""])


def _weights(facts: RunFacts, form: CardForm) -> str:
    kind = facts.spec.method.kind
    lines = [_DOES[kind]]
    if form.merge is not None or (form.form == "gguf" and kind in _MERGED):
        lines.append(_MERGED[kind])
    if form.merge is not None:
        lines.append(form.merge.sentence())
    return "\n".join([*lines, f"Format of the weights here: {form.weights}.", ""])


def _data(facts: RunFacts) -> str:
    data = facts.spec.data
    learned = "the replies" if data.train_on == "replies" else "every word"
    lines = [
        f"- Source: {_plain(facts.data)}",
        f"- Rows: {_number(facts.num_rows)}, of which {data.eval_percent:g} % are held out",
        f"- SHA-256: {data.sha256 or 'unknown'}",
        f"- Learned: {learned}",
    ]
    return "\n".join([*lines, ""])


def _result(facts: RunFacts) -> str:
    before, after = facts.loss_before, facts.loss_after
    at = f" at step {facts.eval_step:,}" if facts.eval_step else ""
    peak = gib(facts.peak_bytes) if facts.peak_bytes else "unknown"
    lines = [
        f"- Loss on held-out rows, nats per token: {_loss(before)} before, {_loss(after)} after"
        f"{at}",
        f"- Loss of the last training step: {_loss(facts.train_loss)}",
        f"- Steps: {facts.steps:,}",
        f"- Measured peak of memory: {peak}, on {facts.hardware or 'unknown hardware'}",
    ]
    if facts.versions:
        versions = ", ".join(f"{name} {number}" for name, number in facts.versions.items())
        lines.append(f"- Made with {versions}")
    return "\n".join([*lines, ""])


def _settings(facts: RunFacts) -> str:
    """The spec without what names places on a computer."""
    spec = facts.spec
    model = {"source": facts.base, "revision": spec.model.revision}
    document = {
        "model": {key: value for key, value in model.items() if value},
        "method": _told(spec.method.model_dump(mode="json")),
        "train": _told(spec.train.model_dump(mode="json")),
    }
    return f"```json\n{json.dumps(document, indent=2, ensure_ascii=False)}\n```\n"


def _told(settings: dict) -> dict:
    return {key: value for key, value in settings.items() if value is not None}


def _limits(facts: RunFacts, form: CardForm) -> str:
    lines = [
        "It was tuned on the data above and measured on a held-out part of it only: how it does on "
        "anything else was not tested, nor whether it is safe or correct.",
        f"Conversations of more than {facts.spec.train.sequence_length:,} tokens were cut while it "
        "was tuned.",
        "It may repeat what stands in its data word for word.",
    ]
    if facts.loss_after is None:
        lines.append("No loss on held-out rows was measured after the last step.")
    licence = (
        f"The base's licence, {facts.licence}, goes on to apply."
        if facts.licence
        else "The base's licence is not known here: see its own page before passing this on."
    )
    return "\n".join([*(f"- {line}" for line in [*lines, licence, *form.notes]), ""])


def _use(facts: RunFacts, form: CardForm) -> str:
    if form.form == "gguf":
        name = facts.name.lower()
        return f"```sh\n{_USE_GGUF.format(file=form.file, name=name)}\n```\n"
    lines = _USE_MODEL
    if form.form == "adapter":
        lines = _USE_FOUR_BIT_ADAPTER if facts.spec.method.kind == "qlora" else _USE_ADAPTER
    return "\n".join(["```python", *lines, "```", ""])


def _loss(value: float | None) -> str:
    return "not measured" if value is None else f"{value:.4f}"


def _number(value: int | None) -> str:
    return "unknown" if value is None else f"{value:,}"


def _plain(text: str) -> str:
    """A name that a person gave may hold marks of Markdown, or of HTML."""
    return "".join(one if one.isalnum() or one in " ._-/" else "_" for one in text)
