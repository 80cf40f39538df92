"""``sstoken split CONFIG``: answers right against bytes sent and retention, over K and three ways to choose the states."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from peft import LoraConfig, get_peft_model
from transformers.utils.logging import disable_progress_bar

from sstoken.data.encode import tokenize
from sstoken.data.readers import read_rows
from sstoken.data.tokens import TokenData
from sstoken.models.load import Weights, load_tokenizer
from sstoken.records.documents import ConfigError, located, read_yaml, schema, validate
from sstoken.records.files import atomic_write, sha256_file
from sstoken.records.provenance import commit, software
from sstoken.split.forward import SplitModel, choose, retention
from sstoken.split.uplink import decibel, efficiency, payload_bytes, rate, share_band
from sstoken.world import generate

PROJECTIONS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
EVERYTHING, UNTRAINED = 10**6, -1
"""Of ``keep``: all prompt states are sent; the same with the model as it was."""
COLUMNS = ["keep", "choice", "seed", "right", "states", "bytes", "retention", "seconds", "efficiency"]


@dataclass(frozen=True)
class Sample:
    """One row at the cut. answer [T] marks the tokens that must all be predicted for the row to count as right."""

    ids_T: torch.Tensor
    states_TD: torch.Tensor
    importance_P: torch.Tensor
    answer_T: torch.Tensor

    @property
    def prompt(self) -> int:
        return len(self.importance_P) + 1


def read(path: str | Path) -> dict:
    """The configuration, checked.

    Raises:
        ConfigError: names the key.
    """
    config = read_yaml(path)
    validate(config, schema("split"), str(path))
    if config["keep"] != sorted(set(config["keep"])):
        raise ConfigError(f"{path}: keep must rise: {sorted(set(config['keep']))}")
    return config


def run(config: dict, out: Path) -> pd.DataFrame:
    """Train the upper blocks once for each K, choice and seed.

    Writes ``split.csv``, ``split.json``, ``report/tables/split.md`` and ``report/figures/split.svg``.

    Returns:
        ``COLUMNS``: right, share of the test rows whose answer is predicted token for token; states, sent a sample on
        average; bytes and seconds of one step's uplink (the slowest client); efficiency, retention a second.
    """
    folder = located(config["model"])
    disable_progress_bar()
    found, details = [], {}
    for seed in config["seeds"]:
        rows = out / "world" / f"seed{seed}"
        rows.mkdir(parents=True, exist_ok=True)
        generate(rows, seed=seed)
        train, test = (_samples(folder, rows / f"{name}.jsonl", config) for name in ("clean", "reference"))
        hidden = train[0].states_TD.shape[1]
        details[f"seed {seed}"] = {"train": len(train), "test": len(test)}
        untrained = SplitModel(Weights(folder).load(dtype="float32"), config["cut"])
        found.append(
            _row(UNTRAINED, "none", seed, _right(untrained, test, EVERYTHING, "all", seed), test, hidden, config)
        )
        for keep, choice in _settings(config):
            model = _trained(folder, train, keep, choice, seed, config)
            found.append(_row(keep, choice, seed, _right(model, test, keep, choice, seed), test, hidden, config))
            print(f"seed {seed}, K {keep}, {choice}: {found[-1]['right']:.1%} right", flush=True)
    frame = pd.DataFrame(found, columns=COLUMNS)
    _write(frame, config, details | {"weights": sha256_file(folder / "model.safetensors")}, out)
    return frame


def _settings(config: dict) -> list[tuple[int, str]]:
    """(K, choice); where nothing is kept, or everything sent, how it is chosen does not matter."""
    choices = config["choices"]
    return [(k, c) for k in config["keep"] for c in (choices if k else choices[:1])] + [(EVERYTHING, "all")]


def _samples(folder: Path, file: Path, config: dict) -> list[Sample]:
    rows, _ = read_rows([str(file)], on_bad_row="stop", limit=config["rows"])
    data, _ = tokenize(
        rows, load_tokenizer(folder), template="tulu", max_length=config["max_length"], on_bad_row="drop"
    )
    split = SplitModel(Weights(folder).load(dtype="float32"), config["cut"])
    return [sample for i in range(len(data)) if (sample := _sample(split, data, i))]


def _sample(split: SplitModel, data: TokenData, index: int) -> Sample | None:
    """None where there is no prompt to choose from, or more than one turn: the anchor is the one prompt's last token."""
    place = slice(data.offset[index], data.offset[index + 1])
    ids, mask = data.input_ids[place].long(), data.response_mask[place]
    prompt = int(mask.int().argmax())
    if prompt < 2 or not mask[prompt:].all():
        return None
    states, importance = split.lower(ids, prompt)
    answer = mask if data.teaches is None or not data.teaches[place].any() else data.teaches[place]
    return Sample(ids, states, importance, answer)


def _trained(folder: Path, train: list[Sample], keep: int, choice: str, seed: int, config: dict) -> SplitModel:
    torch.manual_seed(seed)
    model = Weights(folder).load(dtype="float32")
    upper = list(range(config["cut"], model.config.num_hidden_layers))
    adapter = LoraConfig(
        r=config["rank"], lora_alpha=config["alpha"], target_modules=PROJECTIONS, layers_to_transform=upper,
        task_type="CAUSAL_LM",
    )  # fmt: skip
    split = SplitModel(get_peft_model(model, adapter).get_base_model(), config["cut"])
    weights = [p for p in split.model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=config["learning_rate"], weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - step / config["steps"])
    order, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    for _ in range(config["steps"]):
        batch = [train[i] for i in order.choice(len(train), config["batch_size"], replace=False)]
        loss = torch.stack([loss.mean() for loss, _ in _losses(split, batch, keep, choice, generator)]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return split


def _losses(split: SplitModel, batch: list[Sample], keep: int, choice: str, generator: torch.Generator):
    """(loss, whether the largest logit is right) of every response token, a pair a sample."""
    sent = [choose(s.states_TD, s.importance_P, keep, choice, generator) for s in batch]
    logits = split.upper(sent)
    for sample, one, logits_SV in zip(batch, sent, logits, strict=True):
        response = sample.ids_T[sample.prompt :]
        found = logits_SV[one.prompt - 1 : one.prompt - 1 + len(response)]
        yield torch.nn.functional.cross_entropy(found, response, reduction="none"), found.argmax(-1) == response


@torch.no_grad()
def _right(split: SplitModel, test: list[Sample], keep: int, choice: str, seed: int) -> float:
    generator, right = torch.Generator().manual_seed(seed), 0
    for start in range(0, len(test), 64):
        batch = test[start : start + 64]
        for sample, (_, correct) in zip(batch, _losses(split, batch, keep, choice, generator), strict=True):
            right += bool(correct[sample.answer_T[sample.prompt :]].all())
    return right / len(test)


def _row(keep: int, choice: str, seed: int, right: float, test: list[Sample], hidden: int, config: dict) -> dict:
    """A setting and its costs: the test rows in turn belong to the clients, each with a channel drawn by the seed."""
    uplink, clients = config["uplink"], config["uplink"]["clients"]
    states = np.array([s.prompt if keep == UNTRAINED or keep >= s.prompt - 1 else keep + 2 for s in test])
    kept = np.array([1.0 if keep == UNTRAINED else retention([s.importance_P], keep) for s in test])
    mean = [np.array([values[m::clients].mean() for m in range(clients)]) for values in (states, kept)]
    size = config["batch_size"] * payload_bytes(mean[0], hidden, uplink["bits"])
    gain = decibel(np.random.default_rng(seed).uniform(*uplink["gain_db"], clients))
    channel = {"power_w": uplink["power_w"], "noise_w_hz": decibel(uplink["noise_dbm_hz"]) / 1000}
    band = share_band(8 * size, gain, band_hz=uplink["bandwidth_hz"], **channel)
    seconds = 8 * size / rate(band, gain=gain, **channel)
    values = [
        keep, choice, seed, right, states.mean(), size.sum(), mean[1].mean(), seconds.max(), efficiency(mean[1], seconds)
    ]  # fmt: skip
    return dict(zip(COLUMNS, values, strict=True))


def _write(frame: pd.DataFrame, config: dict, details: dict, out: Path) -> None:
    from sstoken.report.figures.split import draw

    with atomic_write(out / "split.csv") as path:
        frame.to_csv(path, index=False)
    shown = frame.groupby(["keep", "choice"], sort=False)[COLUMNS[3:]].mean().reset_index()
    names = {UNTRAINED: "untrained", EVERYTHING: "all"}
    shown["keep"] = [names.get(keep, str(keep)) for keep in shown["keep"]]
    with atomic_write(out / "report" / "tables" / "split.md") as path:
        path.write_text(shown.to_markdown(index=False, floatfmt=".3g") + "\n")
    draw(frame, out / "report" / "figures")
    with atomic_write(out / "split.json") as path:
        path.write_text(
            json.dumps({"config": config, **details, "commit": commit(), "software": software()}, indent=1, default=str)
        )
