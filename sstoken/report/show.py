"""Which tokens a run kept of which samples: as text, JSON lines, or a page."""

from __future__ import annotations

import html
import json
import math
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer

from sstoken.report.numbers import number, share
from sstoken.report.samples import token_texts
from sstoken.report.selection_files import Selection, read_selection

FORMATS = ("text", "jsonl", "html")
STYLE = """
body { max-width: 60rem; margin: 1rem auto; padding: 0 1rem; font: 15px/1.6 system-ui, sans-serif; color-scheme: light dark; }
h2 { font-size: 1rem; margin: 1.6rem 0 .3rem; } p { white-space: pre-wrap; overflow-wrap: anywhere; margin: .2rem 0; }
.prompt { opacity: .7; } del { opacity: .55; } .noise { border-bottom: 2px dotted #a63a00; }
"""


def show_run(
    run_folder: str | Path,
    tokens_file: str | Path,
    tokenizer: str | Path | Tokenizer,
    ids: Iterable[str] | None = None,
    format: str = "text",
) -> str:
    """What a run kept and dropped, token by token.

    Args:
        run_folder: ``…/runs/{model}/{method}/seed{seed}``. tokens_file: what it was trained on,
            ``…/tokens/{model}/{data set}.safetensors``.
        tokenizer: a ``tokenizer.json``, or the folder of a model that has one.
        ids: names of the samples, in the order in which they are shown; None: all that were trained on.
        format: "text": prompt and response, dropped tokens as ``[-token-]``.  "jsonl": a line a sample,
            ``{"id", "prompt", "response_tokens", "kept_tokens", "tokens": [{"text", "id", "kept", "score", "noise"}]}``,
            score null where the run gave none, noise only where the data says which tokens are.  "html": one page.

    Raises:
        ValueError: an unknown format or sample, no tokenizer, or a run that was trained on other tokens.
    """
    from sstoken.data import TokenData

    if format not in FORMATS:
        raise ValueError(f"format {format!r}: choose one of {', '.join(FORMATS)}")
    if not Path(tokens_file).exists():
        there = sorted(path.name for path in Path(tokens_file).parent.glob("*.safetensors"))
        raise ValueError(f"{tokens_file}: no such file; beside it are {', '.join(there) or 'none'}")
    data = TokenData.load(tokens_file)
    chosen = read_selection(run_folder, data)
    place = {name: index for index, name in enumerate(data.ids)}
    if ids is None:
        wanted = [index for index in range(len(data)) if chosen.step[index] >= 0]
    else:
        wanted = []
        for name in ids:
            if name not in place:
                known = ", ".join(data.ids[:3])
                raise ValueError(f"{tokens_file}: no sample {name!r} among its {len(data)}; ids look like {known}")
            wanted.append(place[name])
    read = _tokenizer(tokenizer)
    samples = [_sample(data, chosen, index, read) for index in wanted]
    return {"text": _as_text, "jsonl": _as_lines, "html": _as_page}[format](samples)


def tokens_of(run_folder: str | Path) -> tuple[Path, Path]:
    """(tokens, model) that a run of ``results/{experiment}/runs/{model}/{method}/seed{seed}`` was trained on and from.

    Raises:
        ValueError: no record of a run there, or its tokens are gone.
    """
    folder = Path(run_folder)
    record = folder / "run.json"
    if not record.exists():
        raise ValueError(f"{record}: no such file; give results/{{experiment}}/runs/{{model}}/{{method}}/seed{{seed}}")
    wanted = json.loads(record.read_text())["tokens_sha256"]
    root, model = folder.parents[3], folder.parents[1].name
    for path in sorted((root / "tokens" / model).rglob("*.json")):
        if json.loads(path.read_text()).get("tokens_sha256") == wanted:
            return path.with_suffix(".safetensors"), root / "models" / model
    raise ValueError(f"{root / 'tokens' / model}: the tokens that this run was trained on are not there any more")


def _tokenizer(source: str | Path | Tokenizer) -> Tokenizer:
    if isinstance(source, Tokenizer):
        return source
    path = Path(source)
    path = path / "tokenizer.json" if path.is_dir() else path
    if not path.exists():
        raise ValueError(f"{path}: no such file; give a tokenizer.json, or the folder of a model that has one")
    return Tokenizer.from_file(str(path))


def _sample(data, chosen: Selection, index: int, tokenizer: Tokenizer) -> dict:
    sample = data.sample(index)
    ids, mask = sample["input_ids"].tolist(), sample["response_mask"].tolist()
    texts = token_texts(ids, tokenizer)
    first = mask.index(True)
    start, stop = data.response_offset[index : index + 2].tolist()
    keep, score = chosen.keep[start:stop].tolist(), chosen.score[start:stop].tolist()
    rows = zip(texts, ids, mask, strict=True)
    tokens = []
    for (text, token, _), kept, value in zip((row for row in rows if row[2]), keep, score, strict=True):
        tokens.append({"text": text, "id": token, "kept": kept, "score": value if math.isfinite(value) else None})
    if data.truth is not None:
        begin = int(data.offset[index])
        codes = data.truth[begin : begin + len(ids)][sample["response_mask"]].tolist()
        for token, code in zip(tokens, codes, strict=True):
            token["noise"] = ["", *data.kinds][code]
    return {
        "id": data.ids[index],
        "trained": int(chosen.step[index]) >= 0,
        "prompt": "".join(texts[:first]).strip(),
        "response_tokens": len(tokens),
        "kept_tokens": sum(keep),
        "tokens": tokens,
    }


def _heading(sample: dict) -> str:
    if not sample["trained"]:
        return f"{sample['id']}: never trained on"
    kept, count = sample["kept_tokens"], sample["response_tokens"]
    text = f"{sample['id']}: kept {kept} of {count} response tokens ({share(kept / count)})"
    noise = [token for token in sample["tokens"] if token.get("noise")]
    if noise:
        kinds = ", ".join(dict.fromkeys(token["noise"].replace("_", " ") for token in noise))
        text += f"; dropped {sum(not token['kept'] for token in noise)} of {len(noise)} noise tokens ({kinds})"
    return text


def _as_text(samples: list[dict]) -> str:
    parts = []
    for sample in samples:
        response, dropping = [], False
        for token in sample["tokens"]:  # neighbours that are dropped share one pair of marks
            if token["kept"] == dropping:
                response.append("-]" if dropping else "[-")
                dropping = not dropping
            response.append(token["text"])
        parts.append(f"{_heading(sample)}\n{sample['prompt']}\n{''.join(response)}{'-]' if dropping else ''}\n")
    return "\n".join(parts)


def _as_lines(samples: list[dict]) -> str:
    rows = ({name: value for name, value in sample.items() if name != "trained"} for sample in samples)
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _as_page(samples: list[dict]) -> str:
    parts = []
    for sample in samples:
        spans = []
        for token in sample["tokens"]:
            tag = "span" if token["kept"] else "del"
            score = "no score" if token["score"] is None else f"score {number(token['score'], 3)}"
            noise = token.get("noise", "")
            title = html.escape(f"{score}{f', noise: {noise}' if noise else ''}")
            kind = ' class="noise"' if noise else ""
            spans.append(f'<{tag}{kind} title="{title}">{html.escape(token["text"])}</{tag}>')
        heading, prompt = html.escape(_heading(sample)), html.escape(sample["prompt"])
        parts.append(f'<h2>{heading}</h2>\n<p class="prompt">{prompt}</p>\n<p>{"".join(spans)}</p>')
    body = "\n".join(parts)
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n<title>Kept and dropped tokens</title>\n'
        f"<style>{STYLE}</style>\n<p>Struck through: dropped from the loss. Dotted line: known noise. "
        f"Point at a token for its score.</p>\n{body}\n</html>\n"
    )
