"""How many kept tokens rounding decides: masks of the first steps over two batch shapes and two dtypes.

``python -m benchmarks.rounding`` prints the table of docs/rounding.md, on the embedded world.  REL of the first steps is
small, min-max stretches it to [0, 1] whatever its size, and what is left of it after rounding ranks the tokens.
"""

from __future__ import annotations

import json
import tempfile
from itertools import product
from pathlib import Path
from unittest.mock import patch

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainingArguments, set_seed

from sstoken.data import token_data
from sstoken.selection.methods import load_method
from sstoken.selection.token_loss import WideProjection
from sstoken.training.dataset import SelectionDataset
from sstoken.training.reference_losses import compute_losses
from sstoken.training.trainer import SelectionTrainer
from sstoken.world.generate import generate

WEIGHTS = Path(__file__).parents[1] / "sstoken" / "world" / "weights" / "llama-small"
STEPS, BATCH = 4, 32  # of 75 steps of the world's 2400 rows: the first 5 %
SHAPES = {"32 x 1": (32, 1), "8 x 4": (8, 4)}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def rounded_product(projection, hidden_CD, out_CV):
    """Logits in the inputs' dtype, as most code has them."""
    return out_CV.copy_(hidden_CD @ projection.weight_VD.to(hidden_CD.dtype).T)


def masks(data, dtype: torch.dtype, shape: tuple[int, int], rounded: bool, folder: str):
    """(keep [R] of every token of the first steps, mean range of REL at the first step)."""
    from peft import LoraConfig, get_peft_model

    set_seed(0)
    model = AutoModelForCausalLM.from_pretrained(WEIGHTS, dtype=dtype)
    logits = patch.object(WideProjection, "__call__", rounded_product) if rounded else patch.dict({}, {})
    with logits:
        base = compute_losses(model, data)
        targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
        model = get_peft_model(model, LoraConfig(r=8, lora_alpha=8, target_modules=targets, task_type="CAUSAL_LM"))
        arguments = TrainingArguments(
            folder, per_device_train_batch_size=shape[0], gradient_accumulation_steps=shape[1], max_steps=STEPS,
            learning_rate=4e-3, bf16=dtype == torch.bfloat16, logging_steps=1, report_to="none", disable_tqdm=True,
            use_cpu=True, save_strategy="no", train_sampling_strategy="sequential", seed=0,
        )  # fmt: skip
        dataset = SelectionDataset(data, {"history_loss": base})
        method = load_method("self-modulated")
        trainer = SelectionTrainer(model, arguments, method=method, train_dataset=dataset)
        trainer.train()
    lines = [row for row in trainer.state.log_history if "rel_range" in row]
    return trainer.record["keep"], lines


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        sizes = {"rows": STEPS * BATCH, "reference_rows": 8, "questions": 8, "documents": 8}
        generate(Path(folder) / "world", seed=0, **sizes)
        lines = (Path(folder) / "world" / "train.jsonl").read_text().splitlines()[: STEPS * BATCH]
        messages = [[{k: m[k] for k in ("role", "content")} for m in json.loads(line)["messages"]] for line in lines]
        rows = [{"messages": sample} for sample in messages]
        data = token_data(rows, AutoTokenizer.from_pretrained(WEIGHTS), template="tulu", max_length=512)
        found = {
            (dtype, shape, rounded): masks(data, DTYPES[dtype], SHAPES[shape], rounded, folder)
            for dtype, shape, rounded in product(DTYPES, SHAPES, (False, True))
            if not (rounded and dtype == "float32")
        }
    total = len(next(iter(found.values()))[0])
    print(f"{total} response tokens of the first {STEPS} steps; method self-modulated")
    print("| compared | logits summed in float32 | logits rounded to the states' dtype |")
    print("|---|--:|--:|")

    def differ(one, other):
        return f"{100 * (found[one][0] != found[other][0]).float().mean():.2f} %"

    a, b = SHAPES
    print(f"| float32: {a} and {b} | {differ(('float32', a, False), ('float32', b, False))} | - |")
    pair = [differ(("bfloat16", a, r), ("bfloat16", b, r)) for r in (False, True)]
    print(f"| bfloat16: {a} and {b} | {pair[0]} | {pair[1]} |")
    for shape in SHAPES:
        pair = [differ(("float32", shape, False), ("bfloat16", shape, r)) for r in (False, True)]
        print(f"| {shape}: float32 and bfloat16 | {pair[0]} | {pair[1]} |")
    print("\nREL's range and one rounding's size, by step:")
    for (dtype, shape, rounded), (_, lines) in found.items():
        steps = ", ".join(f"{row['rel_range']:.3g}/{row['rel_floor']:.2g}" for row in lines)
        print(f"| {dtype}, {shape}, {'rounded' if rounded else 'float32 sums'} | {steps} |")


if __name__ == "__main__":
    main()
