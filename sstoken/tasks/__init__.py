"""lm-eval task files of ours, found by lm-eval through this folder (``sstoken.evaluation`` hands it over).

``prompt_tokenizer`` is how a task that cuts its prompt by tokens reaches the tokenizer of the model under evaluation,
which a task file is never given. Unset (a task run by lm-eval's own command line), such a task leaves its prompt whole.
"""

from contextvars import ContextVar

prompt_tokenizer: ContextVar = ContextVar("prompt_tokenizer", default=None)
