"""TRL's SFTTrainer with a method: the same losses and masks as SelectionTrainer's on the same rows."""

import shutil

import datasets
import pytest
import torch

from sstoken import SelectionTrainer, load_method
from sstoken.training.refusals import Unsupported
from tests.byte_models import byte_llama, byte_tokenizer
from tests.conftest import tiny_adapter
from tests.trainers import adapter_of, arguments, largest_difference

trl = pytest.importorskip("trl", reason="TRL is not installed")

# the end of a turn is part of the answer, and {% generation %} tells TRL what the assistant says
TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'assistant' %}A: {% generation %}{{ m.content }}{{ eos_token }}"
    "{% endgeneration %}{% else %}Q: {{ m.content }}\n{% endif %}{% endfor %}{% if add_generation_prompt %}A: {% endif %}"
)
TURNS = [("Name a colour.", "Red is a colour that many like."), ("Two and two?", "Four."), ("Hi!", "Hello, you.")] * 8


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_TELEMETRY", True)


@pytest.fixture(scope="module")
def tokenizer():
    return byte_tokenizer(pad_token="<s>", chat_template=TEMPLATE)


ROWS = {
    "messages": [{"messages": [{"role": "user", "content": q}, {"role": "assistant", "content": a}]} for q, a in TURNS],
    "prompt-completion": [
        {"prompt": [{"role": "user", "content": q}], "completion": [{"role": "assistant", "content": a}]}
        for q, a in TURNS
    ],
}


def model_for(tokenizer):
    torch.manual_seed(1)
    return tiny_adapter(byte_llama(tokenizer, width=16, layers=2, positions=512))


SETTINGS = {
    "output_dir", "per_device_train_batch_size", "gradient_accumulation_steps", "num_train_epochs", "max_steps",
    "learning_rate", "lr_scheduler_type", "save_strategy", "report_to", "train_sampling_strategy", "logging_steps",
    "disable_tqdm", "use_cpu",
}  # fmt: skip


def sft(folder, tokenizer, rows, method, config=None, **options):
    from sstoken.training.trl import SelectionSFTTrainer

    plain = arguments(folder, max_steps=-1, num_train_epochs=1).to_dict()
    args = trl.SFTConfig(**{k: plain[k] for k in SETTINGS} | (config or {}), max_length=128, bf16=False)
    return SelectionSFTTrainer(
        model_for(tokenizer),
        args,
        train_dataset=rows,
        processing_class=tokenizer,
        method=method,
        chunk_size=8,
        **options,
    )


def losses_of(trainer):
    return [row["loss"] for row in trainer.state.log_history if "loss" in row]


@pytest.mark.parametrize("form", ROWS)
@pytest.mark.parametrize("name", ["sstoken", "rho1", "random", "full"])
def test_it_trains_as_selection_trainer_does(name, form, tokenizer, tmp_path):
    method, rows = load_method(name), datasets.Dataset.from_list(ROWS[form])
    reference = {"reference_model": byte_llama(tokenizer, width=16, layers=1, positions=512)} if name == "rho1" else {}
    config = {"assistant_only_loss": True} if form == "messages" else {}
    ours = sft(tmp_path / "trl", tokenizer, rows, method, config, **reference)
    ours.train()
    args = arguments(tmp_path / "own", max_steps=-1, num_train_epochs=1)
    own = SelectionTrainer(
        model_for(tokenizer), args, method=method, train_dataset=rows, processing_class=tokenizer, chunk_size=8,
        **reference,
    )  # fmt: skip
    own.train()
    assert own.train_dataset.data.input_ids.equal(ours.train_dataset.data.input_ids)
    assert own.train_dataset.data.response_mask.equal(ours.train_dataset.data.response_mask)
    assert len(losses_of(own)) == 3
    assert losses_of(ours) == pytest.approx(losses_of(own), abs=1e-5)
    assert torch.equal(ours.record["keep"], own.record["keep"]) and (name == "full") == bool(own.record["keep"].all())
    assert largest_difference(adapter_of(own), adapter_of(ours)) < 1e-5


def test_keeping_everything_is_plain_sft(tokenizer, tmp_path):
    rows = datasets.Dataset.from_list(ROWS["messages"])
    ours = sft(tmp_path / "ours", tokenizer, rows, load_method("full"), {"assistant_only_loss": True})
    torch.manual_seed(0)
    theirs = trl.SFTTrainer(model_for(tokenizer), ours.args, train_dataset=rows, processing_class=tokenizer)
    ours.train()
    theirs.train()
    assert losses_of(ours) == pytest.approx(losses_of(theirs), abs=1e-4)


def test_it_evaluates_rows_and_resumes(tokenizer, tmp_path):
    rows, every = datasets.Dataset.from_list(ROWS["messages"]), {"strategy": "steps", "steps": 1}
    config = {"assistant_only_loss": True, **{f"{what}_{k}": v for what in ("eval", "save") for k, v in every.items()}}

    def make():
        return sft(tmp_path, tokenizer, rows, load_method("sstoken"), config, eval_dataset=rows)

    whole = make()
    whole.train()
    found = [row["eval_loss"] for row in whole.state.log_history if "eval_loss" in row]
    assert len(found) == 3 and whole.evaluate(rows)["eval_loss"] == pytest.approx(found[-1], abs=1e-5)
    shutil.rmtree(tmp_path / "checkpoint-3")
    resumed = make()
    resumed.train(resume_from_checkpoint=True)
    assert largest_difference(adapter_of(whole), adapter_of(resumed)) == 0
    assert torch.equal(whole.record["keep"], resumed.record["keep"])


def test_what_trl_would_do_otherwise_is_refused(tokenizer, tmp_path):
    rows, method = datasets.Dataset.from_list(ROWS["messages"]), load_method("sstoken")
    for config, message in (({"packing": True}, "packing"), ({"loss_type": "dft"}, "loss_type='dft'")):
        with pytest.raises(Unsupported, match=message):
            sft(tmp_path, tokenizer, rows, method, config)
    with pytest.raises(ValueError, match="assistant_only_loss"):  # TRL's default trains on the prompt too
        sft(tmp_path, tokenizer, rows, method)
    with pytest.raises(Unsupported, match=r"a datasets\.Dataset, not IterableDataset"):
        sft(tmp_path, tokenizer, rows.to_iterable_dataset(), method, {"assistant_only_loss": True, "max_steps": 2})


def test_messages_without_a_chat_template_are_refused_with_what_to_do(tmp_path):
    rows = datasets.Dataset.from_list(ROWS["messages"])
    with pytest.raises(
        Unsupported, match=r"this tokenizer has none: set tokenizer\.chat_template, or pass rows with prompt"
    ):
        sft(tmp_path, byte_tokenizer(pad_token="<s>"), rows, load_method("sstoken"), {"assistant_only_loss": True})
