"""One training run: packing, selection in the step, LoRA, losses of frozen models, several devices."""
