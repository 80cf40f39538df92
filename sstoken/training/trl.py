"""TRL's SFTTrainer with selection: an SFT script gets a method by changing the class and naming the method.

    from sstoken.training.trl import SelectionSFTTrainer, load_method
    trainer = SelectionSFTTrainer(model, args, train_dataset=rows, method=load_method("sstoken"))

TRL reads, renders and cuts the rows, and marks what is trained on; selection begins at its labels.
"""

from __future__ import annotations

import numpy as np
import torch
from datasets import Dataset
from trl import SFTTrainer

from sstoken.data import TokenData
from sstoken.selection.methods import load_method
from sstoken.training.refusals import Unsupported
from sstoken.training.trainer import Selects

__all__ = ["SelectionSFTTrainer", "load_method"]

BATCH = 1000  # rows read at a time


class SelectionSFTTrainer(Selects, SFTTrainer):
    """SFTTrainer whose loss is the mean of ``L_θ`` over the response tokens that the method keeps.

    Takes SFTTrainer's arguments and SelectionTrainer's ``method``, ``reference_model``, ``chunk_size`` and
    ``dropped_loss_every``.  TRL's own columns of the log (entropy, token accuracy) are not measured.
    """

    def __init__(self, model=None, args=None, **options):
        rows, tokenizer = options.get("train_dataset"), options.get("processing_class")
        if (
            "messages" in (getattr(rows, "column_names", None) or ())
            and getattr(tokenizer, "chat_template", "") is None
        ):
            raise Unsupported(
                "rows of messages are rendered by the tokenizer's chat template, and this tokenizer has none: set "
                "tokenizer.chat_template, or pass rows with prompt and completion"
            )
        super().__init__(model, args, **options)

    def tokens_of(self, dataset) -> TokenData:
        """The rows that TRL has prepared, by their labels."""
        if getattr(self, "_is_vision_dataset", False):
            raise Unsupported("SelectionSFTTrainer reads text alone, and these rows hold images")
        if not isinstance(dataset, Dataset):
            raise Unsupported(
                f"SelectionSFTTrainer needs rows that can be counted: a datasets.Dataset, not {type(dataset).__name__}"
            )
        ids, masks = [], []
        for batch in dataset.with_format(None).iter(BATCH):
            labels = batch.get("labels", batch["input_ids"])
            for number, (ids_T, label_T) in enumerate(zip(batch["input_ids"], labels, strict=True), len(ids)):
                ids_T, label_T = np.asarray(ids_T, dtype=np.int32), np.asarray(label_T)
                mask_T = label_T != -100
                if (label_T[mask_T] != ids_T[mask_T]).any():
                    raise Unsupported(f"row {number}: its labels are other tokens than its input_ids")
                mask_T[:1] = False  # no state comes before the first token
                ids.append(ids_T)
                masks.append(mask_T)
        if not ids:
            raise Unsupported("the data set has no rows")
        return TokenData(
            input_ids=torch.from_numpy(np.concatenate(ids)),
            offset=torch.from_numpy(np.cumsum([0, *map(len, ids)], dtype=np.int64)),
            response_mask=torch.from_numpy(np.concatenate(masks)),
            ids=tuple(f"row {number}" for number in range(len(ids))),
        )
