"""The generator that writes with a local text model: a tiny random one, and a scripted decode step in its place."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from kore_bench.errors import UserError
from kore_bench.examples import Item
from kore_bench.generators import Generator, GeneratorSettings, RejectedError, recorded_calls
from kore_bench.generators.hf import GENERATOR

pytest.importorskip("pydantic", reason="answers are checked by pydantic")

ITEM = Item(
    id="arch", image=Path("arch.png"), prompt="", text="The Red Arch stands in Lyon. It is 40 m tall.", name="Red Arch"
)
TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"


def write_model(folder: Path, *, template: str = TEMPLATE, positions: int = 4096) -> Path:
    """Write a random two-layer Llama that reads and writes bytes."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = {word: number for number, word in enumerate(("<pad>", "<s>", "</s>", *alphabet))}
    backend = Tokenizer(models.BPE(words, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend, pad_token="<pad>", bos_token="<s>", eos_token="</s>", chat_template=template or None
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(words), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=positions, pad_token_id=0, bos_token_id=1, eos_token_id=2,
        initializer_range=0.5,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("llm") / "tiny")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KORE_BENCH_CACHE", str(tmp_path / "cache"))


def writing_with(folder: Path, **settings: Any) -> Generator:
    return GENERATOR.configured(GeneratorSettings(llm=str(folder), **settings))


def test_a_random_model_is_rejected_with_a_reason_and_writes_the_same_again(tiny: Path) -> None:
    writer = writing_with(tiny, max_tokens=24, attempts=3)
    writer.check(ITEM)
    writer.preflight()
    with recorded_calls() as calls, pytest.raises(RejectedError, match="no usable answer to summary: "):
        writer.summary(ITEM, random.Random(0))
    assert (calls[0].item, calls[0].prompt, calls[0].model) == ("arch", "summary", str(tiny))
    assert calls[0].reason.startswith("no usable answer to summary: ")
    first = dict(writer.usage())
    assert (first["requests"], first["rejects"], first["retries"]) == (3, 1, 2)
    assert 0 < first["tokens_out"] <= 3 * 24
    with pytest.raises(RejectedError, match="no usable answer"):
        writer.summary(ITEM, random.Random(0))
    assert writer.usage()["requests"] == 3  # what was written is kept
    assert writer.usage()["cached"] == 3


def test_the_seed_decides_what_is_sampled_and_no_seed_is_needed_for_the_likeliest(tiny: Path) -> None:
    from kore_bench.generators.llm.local import load

    model = load(str(tiny))
    encoded: Any = model.tokenizer("hello", return_tensors="pt")
    drawn = [model.decode(encoded, 12, 1.0, seed) for seed in (1, 2, 1)]
    assert drawn[0] == drawn[2] != drawn[1]
    assert model.decode(encoded, 12, 0.0, 1) == model.decode(encoded, 12, 0.0, 2)


def test_what_a_model_decodes_is_read_as_the_other_generators_are(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kore_bench.generators.llm.local import LocalModel

    replies = {
        "questions": {"questions": ["Where does the Red Arch stand?", "How tall is the Red Arch?", "Who built it?"]},
        "answers": {"answers": ["It stands in Lyon.", "It is 40 m tall.", ""]},
        "quadruplets": {"quadruplets": [
            {"question": "Where is the Red Arch?", "answer": "Lyon", "subject": "Red Arch", "hypernym": "arch"}]},
        "text": {"text": "In Lyon there is the Red Arch, 40 m tall."},
    }  # fmt: skip

    def scripted(self: LocalModel, encoded: Any, limit: int, temperature: float, seed: int) -> list[int]:
        asked = self.tokenizer.decode(encoded["input_ids"][0])
        reply = next(reply for name, reply in replies.items() if f'{{"{name}":' in asked)
        ids: list[int] = self.tokenizer.encode(f"```json\n{json.dumps(reply)}\n```")
        return [*ids, 2]

    monkeypatch.setattr(LocalModel, "decode", scripted)
    writer: Any = writing_with(tiny)
    turns = writer.dialogue(ITEM, random.Random(0), 10)
    assert [(turn.question, turn.answer) for turn in turns] == [
        ("Where does the Red Arch stand?", "It stands in Lyon."),
        ("How tall is the Red Arch?", "It is 40 m tall."),
    ]
    assert writer.quadruplets(ITEM, random.Random(0), 5)[0].answer == "Lyon"
    assert writer.rewrite(ITEM, random.Random(0)) == "In Lyon there is the Red Arch, 40 m tall."
    assert writer.usage()["requests"] == 4


def test_an_answer_without_an_end_was_cut_off(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from kore_bench.generators.llm.local import LocalModel

    monkeypatch.setattr(LocalModel, "decode", lambda self, *rest: self.tokenizer.encode('{"summary": "The Red'))
    with pytest.raises(RejectedError, match="cut off at 2048 tokens"):
        writing_with(tiny).summary(ITEM, random.Random(0))


def test_a_text_that_the_model_cannot_read_whole_is_rejected(tiny: Path) -> None:
    with pytest.raises(RejectedError, match=r"too long for the model: .* tokens of 4096"):
        writing_with(tiny).summary(replace(ITEM, text="word " * 4096), random.Random(0))


def test_a_template_without_system_messages_gets_one_message(tmp_path: Path) -> None:
    from kore_bench.generators.llm.local import load

    refuses = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}" + TEMPLATE
    folder = write_model(tmp_path / "strict", template=refuses)
    with pytest.raises(RejectedError, match="no usable answer"):
        writing_with(folder, max_tokens=4, attempts=1).summary(ITEM, random.Random(0))
    assert load(str(folder)).tokenizer.chat_template == refuses


def test_other_weights_are_another_model(tiny: Path, tmp_path: Path) -> None:
    other = write_model(tmp_path / "tiny", positions=2048)
    keys = [writing_with(folder).key()["llm"] for folder in (tiny, other)]
    assert keys[0] != keys[1]
    assert all(key.startswith("tiny ") for key in keys)


def test_what_cannot_be_a_model_is_a_sentence(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no such folder"):
        writing_with(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"the folder has no config\.json"):
        writing_with(tmp_path / "empty")
    with pytest.raises(UserError, match="--base-url is for the openai generator"):
        writing_with(tiny, base_url="http://localhost:1/v1")
    mute = write_model(tmp_path / "mute", template="")
    with pytest.raises(UserError, match="has no chat template"):
        writing_with(mute).preflight()
    pickled = write_model(tmp_path / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"no \*\.safetensors"):
        writing_with(pickled)


def test_code_that_comes_with_a_model_is_not_run(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "own")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own"}}
    (folder / "config.json").write_text(json.dumps(config))
    marker = tmp_path / "ran"
    (folder / "own.py").write_text(f"open({str(marker)!r}, 'w').close()\nclass Own: pass\n")
    with pytest.raises(UserError, match=r"--llm .* can be read"):
        writing_with(folder).summary(ITEM, random.Random(0))
    assert not marker.exists()
