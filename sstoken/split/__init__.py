"""Split federated fine-tuning with fewer prompt states sent up: ST-SFLora's idea (arXiv 2605.26120), for causal models.

No selection of loss terms: upper blocks never see what is not sent.  The adaptation from vision transformers is ours.
"""
