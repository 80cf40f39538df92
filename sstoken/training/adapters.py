"""Fresh LoRA adapters on named projections, or on every linear projection of the layers, whatever the family calls them."""

from __future__ import annotations

import re

import peft
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.utils import transformers_weight_conversion as conversion
from transformers import PreTrainedModel

from sstoken.experiment.config import AdapterSettings
from sstoken.models.anatomy import causal_lm
from sstoken.models.projections import short, targets_of
from sstoken.training.distributed import is_sharded


def adapted(model: PreTrainedModel, settings: AdapterSettings) -> PeftModel:
    """The model with fresh LoRA adapters, ``W x + alpha/r · B A dropout(x)``, on the projections that the settings name.

    Raises:
        ValueError: a target that the model does not have or read, or dropout where PEFT has none.
    """
    modules, fused = targets_of(model, settings.targets)
    renamed = _renamed_by_peft(model)
    fused = [*fused, *(f"{name}.weight" for name in modules if name.rsplit(".", 1)[-1] in renamed)]
    modules = [name for name in modules if name.rsplit(".", 1)[-1] not in renamed]
    arrays = sorted({short(name) for name in fused})
    if arrays and settings.dropout:
        raise ValueError(
            f"training.adapter.dropout must be 0 for {type(causal_lm(model)).__name__}: PEFT puts its adapters on the arrays "
            f"of the experts' weights ({', '.join(arrays)}), and has no dropout for those"
        )
    names = {name.rsplit(".", 1)[-1] for name in modules}
    if {name for name, _ in model.named_modules() if name.rsplit(".", 1)[-1] in names} != set(modules):
        names = modules  # something else is called the same
    config = LoraConfig(
        r=settings.rank, lora_alpha=settings.alpha, lora_dropout=settings.dropout, target_modules=sorted(names),
        target_parameters=arrays or None, task_type="CAUSAL_LM",
    )  # fmt: skip
    adapted = get_peft_model(model, config)
    if missing := _without_adapter(adapted, [*modules, *fused]):
        raise ValueError(f"training.adapter.targets: PEFT {peft.__version__} puts no adapter on {', '.join(missing)}")
    if not is_sharded(model) and (unread := _unread(adapted)):
        raise ValueError(
            f"training.adapter.targets: {type(model).__name__} computes without the adapters on {', '.join(unread)}, which "
            "would not be trained; name the other targets"
        )
    return adapted


def _renamed_by_peft(model: PreTrainedModel) -> set[str]:
    """Names that PEFT takes for experts' of before they lay in arrays, wherever they stand: a shared expert's, a dense layer's.

    It would put no adapter there. Their weights are named as arrays instead, which it leaves as they are.
    """
    base = conversion._MODEL_TO_CONVERSION_PATTERN.get(model.config.model_type)
    return set(conversion._MOE_TARGET_MODULE_MAPPING.get(base, ()))


def _without_adapter(model: PeftModel, targets: list[str]) -> list[str]:
    """Of full names of modules and arrays, those that got no adapter, by what stands behind the layer's number."""
    tuned = {*model.targeted_module_names, *model.base_model.targeted_parameter_names}
    return sorted({short(name) for name in targets if name not in tuned})


def _unread(model: PeftModel) -> list[str]:
    """Adapters that get no gradient, by what stands behind the layer's number."""
    lm = causal_lm(model)
    device = lm.get_input_embeddings().weight.device
    adapters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    modes = [(module, module.training) for module in model.modules()]
    with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.enable_grad():
        logits = model.train()(
            input_ids=torch.arange(16, device=device)[None] % lm.get_input_embeddings().weight.shape[0]
        )
        found = torch.autograd.grad(logits.logits.float().mean(), list(adapters.values()), allow_unused=True)
    for module, mode in modes:
        module.training = mode
    # of experts that are modules of their own, those that no token of these is sent to get none
    kinds = {name: re.sub(r"\d+", "#", name) for name in adapters}
    read = {kinds[name] for name, gradient in zip(adapters, found, strict=True) if gradient is not None}
    unread = [name for name in adapters if kinds[name] not in read]
    return sorted({short(name).partition(".lora_")[0].replace(".base_layer", "") for name in unread})
