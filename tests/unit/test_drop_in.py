"""SelectionTrainer in a script of one's own: rows in, losses of base and reference made by the trainer."""

import json
import re
from dataclasses import replace

import datasets
import pytest
import torch
from peft import LoraConfig

from sstoken import SelectionTrainer, load_method
from sstoken.data import token_data
from sstoken.training.dataset import SelectionDataset
from sstoken.training.reference_losses import compute_losses
from tests.byte_models import byte_llama, byte_tokenizer
from tests.conftest import ragged_tokens, tiny_adapter, tiny_model
from tests.trainers import adapter_of, arguments, largest_difference, trainer_for

TURNS = [("Name a colour.", "Red is a colour that many like."), ("Two and two?", "Four."), ("Hi!", "Hello, you.")] * 4
FORMS = {
    "messages": [{"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]} for q, a in TURNS],
    "prompt-completion": [{"prompt": q, "completion": a} for q, a in TURNS],
}


@pytest.fixture(scope="module")
def tokenizer():
    return byte_tokenizer()


def tokenised(tokenizer, mark):
    data = token_data(FORMS["messages"], tokenizer, template="tulu", max_length=512)
    rows = []
    for index in range(len(data)):
        sample = data.sample(index)
        ids, mask = sample["input_ids"].tolist(), sample["response_mask"].tolist()
        labels = [token if keep else -100 for token, keep in zip(ids, mask, strict=True)]
        rows.append({"input_ids": ids, mark: labels if mark == "labels" else [int(keep) for keep in mask]})
    return rows


def rows_in(form, tokenizer):
    rows = FORMS[form] if form in FORMS else tokenised(tokenizer, form)
    return datasets.Dataset.from_list(rows)


def model_for(tokenizer, adapter=True):
    model = byte_llama(tokenizer, width=16, layers=2, positions=512)
    if adapter == "of transformers":
        model.add_adapter(LoraConfig(target_modules=["q_proj", "v_proj"], init_lora_weights=False))
        return model
    return tiny_adapter(model) if adapter else model


def trained(folder, tokenizer, rows, method="sstoken", adapter=True, **options):
    model = options.pop("model", None) or model_for(tokenizer, adapter)
    args = arguments(folder, max_steps=2, **options.pop("args", {}))
    method = load_method(method) if isinstance(method, str) else method
    trainer = SelectionTrainer(
        model, args, method=method, train_dataset=rows, processing_class=tokenizer, template="tulu", **options
    )
    trainer.train()
    return trainer


@pytest.mark.parametrize("form", [*FORMS, "labels", "assistant_masks"])
def test_rows_of_every_form_train_the_same(form, tokenizer, tmp_path):
    whole = trained(tmp_path / "one", tokenizer, rows_in("messages", tokenizer))
    other = trained(tmp_path / "two", tokenizer, rows_in(form, tokenizer))
    assert 0.6 <= other.state.log_history[0]["kept_share"] < 0.7
    assert all(torch.equal(whole.record[name], value) for name, value in other.record.items())
    assert largest_difference(adapter_of(whole), adapter_of(other)) == 0


@pytest.mark.parametrize("adapter", [True, False, "of transformers"])
def test_the_losses_of_the_base_are_those_before_the_first_step_without_adapters(adapter, tokenizer, tmp_path):
    rows, model = rows_in("messages", tokenizer), model_for(tokenizer, adapter)
    base = model_for(tokenizer, adapter=False)
    expected = compute_losses(base, token_data(rows, tokenizer, template="tulu", max_length=2048))
    trainer = trained(tmp_path, tokenizer, rows, model=model)
    torch.testing.assert_close(trainer.train_dataset.signals["history_loss"], expected, atol=1e-5, rtol=1e-5)
    weights = {n: p for n, p in trainer.model.named_parameters() if p.requires_grad}
    assert not all(
        torch.equal(weights[n], p) for n, p in model_for(tokenizer, adapter).named_parameters() if n in weights
    )


@pytest.mark.parametrize("kind", ["model", "folder", "adapter"])
def test_a_reference_is_a_model_or_a_folder(kind, tokenizer, tmp_path):
    rows, reference = rows_in("messages", tokenizer), model_for(tokenizer, adapter=False)
    with torch.no_grad():
        reference.lm_head.weight.add_(0.1 * torch.randn_like(reference.lm_head.weight))
    expected = compute_losses(reference, token_data(rows, tokenizer, template="tulu", max_length=2048))
    given = reference
    if kind == "folder":
        reference.save_pretrained(given := tmp_path / "reference")
    if kind == "adapter":
        reference.save_pretrained(tmp_path / "base")
        reference.name_or_path = str(tmp_path / "base")
        adapted = tiny_adapter(reference)
        adapted.peft_config["default"].base_model_name_or_path = str(tmp_path / "base")
        adapted.save_pretrained(given := tmp_path / "adapter")
        expected = compute_losses(adapted, token_data(rows, tokenizer, template="tulu", max_length=2048))
    trainer = trained(tmp_path / "run", tokenizer, rows, "rho1", reference_model=given)
    torch.testing.assert_close(trainer.train_dataset.signals["reference_loss"], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["rho1-static", "tokencleaning-fixed", "random"])
def test_a_mask_over_the_data_set_is_the_one_made_of_given_losses(name, tokenizer, tmp_path):
    rows, reference = rows_in("messages", tokenizer), byte_llama(tokenizer, width=16, layers=1, positions=512)
    trainer = trained(tmp_path / "one", tokenizer, rows, name, reference_model=reference)
    data = trainer.train_dataset.data
    signals = {
        "base_loss": compute_losses(model_for(tokenizer, adapter=False), data),
        "reference_loss": compute_losses(reference, data),
        "uniform": trainer.train_dataset.signals.get("uniform"),
    }
    signals = {signal: signals[signal] for signal in load_method(name).needs}
    given = trained(tmp_path / "two", tokenizer, SelectionDataset(data, signals), name)
    assert torch.equal(trainer.record["keep"], given.record["keep"])
    assert 0.5 < trainer.record["keep"].float().mean() < 0.7


def test_what_cannot_be_made_is_refused_with_what_to_pass(tokenizer, tmp_path):
    rows = rows_in("messages", tokenizer)
    for method, message in {
        "rho1": "pass reference_model=",
        "tokencleaning-self-evolving": "through the grid",
        "oracle": "needs truth",
    }.items():
        with pytest.raises(ValueError, match=message):
            trained(tmp_path, tokenizer, rows, method)
    with pytest.raises(ValueError, match="processing_class"):
        SelectionTrainer(model_for(tokenizer), arguments(tmp_path), method=load_method("full"), train_dataset=rows)
    larger = tiny_model()  # of 97 tokens, where the rows hold up to 257
    with pytest.raises(ValueError, match="knows 97 tokens"):
        trained(tmp_path, tokenizer, rows, "rho1", reference_model=larger)
    whole = datasets.Dataset.from_list([{"input_ids": [5, 6, 7, 8], "labels": [-100, 6, 7, 8]}] * 8)
    with pytest.raises(ValueError, match="attention to the prompt"):
        trained(tmp_path, tokenizer, whole, "semantic-aware")


def test_seen_samples_are_counted_over_epochs_shuffling_and_resumes(tmp_path):
    """Attention alone ranks the first samples that are seen, wherever they stand in the data set."""
    from sstoken.selection.methods import sstoken as module

    data = ragged_tokens(10, response=(8, 12))
    seen = {}

    class Watch(module.Config):
        def score(self, signals):
            seen.setdefault(id(self), []).append(signals.position_B.tolist())
            return super().score(signals)

    def positions(folder, resume=None, **args):
        scorer = Watch(attention_only_samples=4)
        method = replace(load_method("sstoken"), scorer=scorer)
        settings = {"max_steps": -1, "num_train_epochs": 2, "train_sampling_strategy": "random"} | args
        trainer = trainer_for(method, data, folder, micro=2, accumulation=2, args=settings)
        trainer._unchecked = False
        trainer.train(resume_from_checkpoint=resume)
        return [p for batch in seen.pop(id(scorer)) for p in batch]

    options = {"save_strategy": "steps", "save_steps": 2}
    assert positions(tmp_path, **options) == list(range(20))
    assert positions(tmp_path, resume=str(tmp_path / "checkpoint-2"), **options) == list(range(8, 20))
    assert positions(tmp_path, resume=str(tmp_path / "checkpoint-4"), **options) == list(range(14, 20))


CHAT = "{% for m in messages %}{{ m.role }}: {{ m.content }}{{ eos_token }}{% endfor %}"


def test_the_example_of_the_docs_trains(root, tmp_path, monkeypatch, capsys):
    page = (root / "docs" / "how-to" / "own-script.md").read_text()
    example, *_ = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(example.strip().splitlines()) <= 15
    tokenizer = byte_tokenizer(chat_template=CHAT)
    tokenizer.save_pretrained(tmp_path / "model")
    model_for(tokenizer, adapter=False).save_pretrained(tmp_path / "model")
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in FORMS["messages"]))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    exec(compile(example.replace("Qwen/Qwen2.5-0.5B-Instruct", "model"), "own-script.md", "exec"), {})
    assert re.search(r"kept 6\d% of the response tokens", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("half-steps", "0.5 of the steps; a script sets max_steps so"),
        ("tenth-rate", "0.1 of the learning rate; a script sets learning_rate so"),
        ("clean", "the data set 'clean'; a script passes those rows"),
        ("train-and-reference", "the data set 'train.reference'; a script passes those rows"),
    ],
)
def test_what_the_grid_does_beside_selection_is_said_to_a_script(name, words):
    with pytest.warns(UserWarning, match=f"method {name}: the grid trains it .*{words}"):
        load_method(name)


def test_a_method_that_is_its_selection_alone_says_nothing(recwarn):
    for name in ("full", "sstoken", "rho1", "oracle"):
        load_method(name)
    assert not list(recwarn)
