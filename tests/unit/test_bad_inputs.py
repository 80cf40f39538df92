"""What a user may get wrong: one line that says file, row or key, what is wrong, and what to do, before anything starts.

Through the same calls as the command: the configuration is read, the grid is built, all that it names is looked at.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

from sstoken.experiment.check import check
from sstoken.experiment.config import read_config
from sstoken.experiment.grid import Grid
from sstoken.records.documents import ConfigError
from sstoken.selection.methods import MethodError

ROOT = Path(__file__).parents[2]
ROW = {"prompt": "a", "completion": "b c"}
CONFIG = {
    "experiment": "x", "models": ["m"], "methods": ["full"], "benchmarks": ["arc_easy"], "benchmarks_data": "benchmarks",
    "data": {"train": {"sources": ["rows.jsonl"]}},
    "own_models": [{"name": "m", "family": "Llama", "size": "tiny", "source": "local:model"}],
}  # fmt: skip
QUESTION = {"id": "1", "question": "a", "choices": {"text": ["b", "c"], "label": ["A", "B"]}, "answerKey": "A"}
MODELS = "name\tfamily\tsize\tsource\trevision\tkeep_ratio\n"


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    from sstoken.world.tokenizer import random_model

    folder = tmp_path_factory.mktemp("model") / "model"
    random_model(folder, family="llama", size="tiny", seed=0)
    return folder


@pytest.fixture
def here(tmp_path, monkeypatch, model):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(model, "model")
    Path("rows.jsonl").write_text(json.dumps(ROW) + "\n")
    questions = Path("benchmarks/arc/ARC-Easy/test.jsonl")
    questions.parent.mkdir(parents=True)
    questions.write_text(json.dumps(QUESTION) + "\n")
    Path("x.yaml").write_text(yaml.safe_dump(CONFIG))
    return tmp_path


def asked(*words: str, path: str = "x.yaml") -> None:
    check(Grid(read_config([path], list(words))))


def refused(message: str, *words: str, lines: int = 1) -> str:
    """The message, which must be so many lines and come at once."""
    start = time.monotonic()
    with pytest.raises((ConfigError, MethodError)) as caught:
        asked(*words)
    text = str(caught.value)
    assert re.search(message, text), text
    assert len(text.splitlines()) <= lines and len(text) < 1000, text
    assert time.monotonic() - start < 10
    return text


def test_what_the_cases_below_break_is_whole(here):
    asked()


TEXTS = {
    "a tab": (b"experiment: x\nmodels:\n\t- m\n", r"x.yaml:3:1: a tab; YAML is indented with blanks"),
    "a key twice": (b"seeds: [0]\nseeds: [1]\n", r"x.yaml:2:1: the key 'seeds' stands in line 1 already"),
    "a bracket left open": (b"models: [m\nmethods: [full]\n", r"x.yaml:2:\d+: "),
    "a list": (b"- a\n- b\n", "x.yaml: a list or a single value; a mapping of keys is needed"),
    "not UTF-8": (b"experiment: \xff\xfe\n", r"x.yaml: not a text file in UTF-8 \(byte 12\)"),
    "a byte of zero": (b"experiment: \0\n", "x.yaml: .*special characters are not allowed"),
    "an alias of nothing": (b"models: *mine\n", "x.yaml:1:9: found undefined alias"),
    "an anchor that holds itself": (b"models: &m [*m]\n", "x.yaml:1:9: an anchor that holds itself"),
    "anchors that multiply": (
        b"".join(b"a%d: &a%d [%s]\n" % (n, n, b", ".join([b"*a%d" % (n - 1)] * 10) if n else b"x") for n in range(9)),
        "x.yaml:.*anchors that make more than 100000 values",
    ),
    "not a number": (b"training: {learning_rate: .nan}\n", r"x.yaml:1:27: .nan is no number to work with"),
    "without end": (b"training: {learning_rate: .inf}\n", r"x.yaml:1:27: .inf is no number to work with"),
    "a date that is none": (b"experiment: 2024-13-45\n", "x.yaml: month must be in 1..12"),
    "an object": (
        b"experiment: !!python/object/apply:os.system [id]\n",
        "x.yaml:1:13: could not determine a constructor",
    ),
    "two documents": (b"experiment: x\n---\nexperiment: y\n", "x.yaml:2:1: but found another document"),
}


@pytest.mark.parametrize("case", TEXTS)
def test_a_configuration_that_is_no_document(here, case):
    text, message = TEXTS[case]
    Path("x.yaml").write_bytes(text)
    refused(message)


@pytest.mark.parametrize("text", ["", "# nothing\n", "{}\n"])
def test_an_empty_configuration_says_what_it_needs(here, text):
    Path("x.yaml").write_text(text)
    refused("x.yaml: top level: 'experiment' is a required property", lines=5)


def test_anchors_merges_marks_and_windows_line_ends_are_read(here):
    text = yaml.safe_dump({key: value for key, value in CONFIG.items() if key != "data"})
    text += "data:\n  train: &rows {sources: [rows.jsonl], limit: 1}\n  reference: {<<: *rows, limit: 2}\n"
    Path("x.yaml").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    asked()
    assert read_config(["x.yaml"], [])["data"]["reference"] == {
        "sources": ["rows.jsonl"], "limit": 2, "limit_tokens": None, "skip": 0, "shuffle_seed": None, "noise": None
    }  # fmt: skip


SETTINGS = {
    "unknown key": ("trainin={}", "unknown key 'trainin'. Did you mean 'training'"),
    "unknown key below": ("training.learning_rat=1e-3", "unknown key 'training.learning_rat'. Did you mean 'learning_rate'"),
    "wrong type": ("training.epochs=one", "training.epochs: 'one' is not of type 'number'"),
    "true for a number": ("seeds=[true]", "seeds.0: True is not of type 'integer'"),
    "no list": ("seeds=3", r"seeds: 3 is not a list; write seeds=\[3\]"),
    "empty list": ("models=[]", r"models: \[\] should be non-empty"),
    "seed twice": ("seeds=[0, 1, 0]", "seeds: .* has non-unique elements"),
    "method twice": ("methods=[full, full]", "methods: .* has non-unique elements"),
    "seed below zero": ("seeds=[-1]", "seeds.0: -1 is less than the minimum of 0"),
    "block gone": ("training=null", "training: None is not of type 'object'"),
    "block a number": ("training=3", "training: 3 is not of type 'object'"),
    "rate zero": ("training.learning_rate=0", "training.learning_rate: 0 is less than or equal to the minimum of 0"),
    "not a number": ("training.learning_rate=.nan", "the value is not valid YAML .*.nan is no number"),
    "unknown choice": ("training.dtype=fp8", "training.dtype: 'fp8' is not one of"),
    "unknown model": ("models=[tiny-lama]", "unknown model 'tiny-lama'. Did you mean 'tiny-llama'"),
    "unknown method": ("methods=[sstokn]", "unknown method 'sstokn'. Did you mean 'sstoken'"),
    "unknown benchmark": ("benchmarks=[arc_eazy]", "unknown benchmark 'arc_eazy'. Did you mean 'arc_easy'"),
    "unknown track": ("track=publishd", "unknown track 'publishd'"),
    "negative ratio": ("own_methods={a: {extends: rho1, keep_ratio: -0.1}}", "a.keep_ratio: -0.1 is less than the minimum"),
    "unknown parameter": (
        "own_methods={a: {extends: sstoken, parameters: {gama: 1}}} methods=[a]",
        "own_methods.*|methods.*gama",
    ),
    "own name taken": ("own_methods={full: {scorer: full}}", "'full' is the name of a method that is there already"),
    "extends itself": ("own_methods={a: {extends: a}} methods=[a]", "methods extend each other: a -> a"),
    "scorer not there": ("own_methods={a: {scorer: mine.py}} methods=[a]", "scorer mine.py: no such file"),
    "data not there": ("methods=[rho1]", "method reference needs the data set 'reference'"),
    "no rows file": ("data.train.sources=[row.jsonl]", "data.train: row.jsonl: no such file or folder"),
    "a table of rows": ("data.train.sources=[x.yaml]", r"x.yaml: expected a file that ends in .jsonl, .json, .parquet"),
    "own data left open": ("data.train.sources=['{instruct_data}']", "name a file or folder"),
    "no world": ("data.train.sources=['{world}/train.jsonl']", r"add world: \{\} to generate it"),
    "unknown option of the world": ("world={options: {rowz: 3}}", r"world.options: unknown option 'rowz'. Did you mean 'rows'"),
    "name with blanks": ("experiment='my run'", "experiment: 'my run' does not match"),
    "name of a folder above": ("experiment=../x", "experiment: '../x' does not match"),
    "ablation of an unknown key": (
        "ablations=[{name: r, models: [m], methods: [rho1], option: keep_ration, values: [0.5, 1]}]",
        "unknown key 'keep_ration'",
    ),
    "ablation of an unknown model": (
        "ablations=[{name: r, models: [n], methods: [rho1], option: keep_ratio, values: [0.5, 1]}]",
        "ablation r: unknown model 'n'. Known: m",
    ),
    "no key=value": ("seeds", r"'seeds' is not key=value"),
    "no key": ("=3", "a key is a name"),
    "a quote left open": ("set=seeds=[0] instruct_data='a b", "a quote is not closed"),
    "a bracket left open": ("seeds=[0", "not valid YAML"),
    "limits both": ("evaluation={limit: 3, limit_fraction: 0.5}", "limit and limit_fraction are both set"),
    "vLLM not there": ("evaluation.backend=vllm", "the package vllm is not installed"),
    "GPUs that cannot share": ("parallel={tiny: {gpus: 3}}", "3 GPUs cannot share"),
    "models file not there": ("models_file=no.tsv", "no.tsv: no such file"),
    "models file a folder": ("models_file=model", "model: a folder; a file is needed"),
    "unknown kind of source": (
        "own_models=[{name: m, family: Llama, size: tiny, source: 'ftp:x'}]", "source: 'ftp:x' does not match"
    ),
    "unknown base of the world": (
        "own_models=[{name: m, family: Llama, size: tiny, source: 'world:medium'}]", "no base 'medium'; it has llama-large"
    ),
    "package not there": (
        "own_models=[{name: m, family: Llama, size: tiny, source: 'gguf:no_such/x.gguf'}]", "package no_such that carries"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", SETTINGS)
def test_a_setting_that_does_not_make_sense(here, case):
    words, message = SETTINGS[case]
    refused(message, f"set={words}" if " methods=" in words else words)


def config_of(**changes):
    path = Path("model/config.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def cut(name: str):
    os.truncate(name, Path(name).stat().st_size // 2)


def larger_vocabulary():
    path = Path("model/tokenizer.json")
    tokenizer = json.loads(path.read_text())
    tokenizer["added_tokens"].append(tokenizer["added_tokens"][0] | {"id": 10**6, "content": "<of another>"})
    path.write_text(json.dumps(tokenizer))


def other_embedding():
    arrays = load_file("model/model.safetensors")
    name = next(key for key in arrays if key.endswith("embed_tokens.weight"))
    save_file(arrays | {name: torch.zeros(7, arrays[name].shape[1])}, "model/model.safetensors", {"format": "pt"})


def half_a_download():
    names = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    Path("model/model.safetensors").rename(f"model/{names['a']}")
    Path("model/model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))


FOLDERS = {
    "no folder": (lambda: shutil.rmtree("model"), "model m: no folder model"),
    "no config": (lambda: os.remove("model/config.json"), "model m: no config.json in model"),
    "config cut": (lambda: cut("model/config.json"), "model/config.json is no JSON .*download or copy the model again"),
    "config of something else": (lambda: Path("model/config.json").write_text("{}"), "names no model_type"),
    "weights cut": (lambda: cut("model/model.safetensors"), "model.safetensors is not whole .*: download or copy it again"),
    "a pointer of Git LFS": (
        lambda: Path("model/model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\n"),
        "model.safetensors is not whole",
    ),
    "half a download": (half_a_download, "model-00002-of-00002.safetensors not there: download or copy the model again"),
    "pickled weights": (
        lambda: Path("model/model.safetensors").rename("model/pytorch_model.bin"),
        "no safetensors weights.*convert them, python -c",
    ),
    "quantised": (
        lambda: config_of(quantization_config={"quant_method": "gptq"}),
        r"its weights are quantised \(gptq\).*take the model that it was made from",
    ),
    "code of its own": (
        lambda: config_of(model_type="mine", auto_map={"AutoModelForCausalLM": "modeling_mine.Mine"}),
        "it comes with code of its own, which is not run here",
    ),
    "unknown architecture": (lambda: config_of(model_type="llama99"), "model_type 'llama99' is not known to the installed"),
    "no tokenizer": (
        lambda: [path.unlink() for path in Path("model").glob("tokenizer*")],
        "no tokenizer in model: copy tokenizer.json",
    ),
    "tokenizer cut": (lambda: cut("model/tokenizer.json"), "tokenizer.json is no whole tokenizer"),
    "tokenizer of another model": (larger_vocabulary, "1 tokens past the .* rows of the embedding: take the tokenizer"),
    "embedding of another model": (other_embedding, "has 7 rows: two models"),
    "a link out of the folder": (
        lambda: [os.rename("model/tokenizer.json", "t.json"), os.symlink("../t.json", "model/tokenizer.json")],
        "model/tokenizer.json is a link that leads out of the folder; copy the file there",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FOLDERS)
def test_a_model_that_cannot_be_read(here, case):
    damage, message = FOLDERS[case]
    damage()
    refused(message)


def test_a_snapshot_of_the_hubs_cache_is_made_of_links_and_read(here):
    snapshot, blobs = Path("cache/snapshots/0"), Path("cache/blobs")
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for path in Path("model").iterdir():
        path.rename(blobs / path.name)
        (snapshot / path.name).symlink_to(f"../../blobs/{path.name}")
    asked("own_models=[{name: m, family: Llama, size: tiny, source: 'local:cache/snapshots/0'}]")


GOOD = json.dumps(ROW).encode()
ROWS = {
    "an empty file": (b"", "rows.jsonl: no rows"),
    "blank lines": (b"\n \n", "rows.jsonl: no rows"),
    "a row cut": (GOOD + b'\n{"prompt": "a', "rows.jsonl:2: invalid JSON"),
    "not UTF-8": (b'{"prompt": "\xff", "completion": "b"}\n', "rows.jsonl:1: invalid JSON: 'utf-8' codec"),
    "a list of rows": (b"[" + GOOD + b"]", "rows.jsonl:1: not an object but list"),
    "of no known form": (b'{"text": "a"}\n', "rows.jsonl:1: in none of the known forms"),
    "of two forms": (b'{"prompt": "a", "completion": "b", "messages": []}\n', "rows.jsonl:1: "),
    "an empty response": (b'{"prompt": "a", "completion": ""}\n', "rows.jsonl:1: .*empty"),
    "a response that is a number": (b'{"prompt": "a", "completion": 3}\n', "rows.jsonl:1: .*not text but int"),
    "an unknown role": (
        b'{"messages": [{"role": "boss", "content": "a"}, {"role": "assistant", "content": "b"}]}\n',
        "rows.jsonl:1: message 1 has the unknown role 'boss'; known:",
    ),
    "an id twice": (
        b'{"id": 7, "prompt": "a", "completion": "b"}\n{"id": 7, "prompt": "c", "completion": "d"}\n',
        "rows.jsonl:2: its id 7 stands at rows.jsonl:1 already",
    ),
    "noise outside the text": (
        b'{"prompt": "a", "completion": "b", "noise": [[0, 99, "cut"]]}\n', "rows.jsonl:1: .*noise"
    ),
    "nested without end": (b'{"prompt": ' + b"[" * 100_000 + b"\n", "rows.jsonl:1: invalid JSON"),
}  # fmt: skip


@pytest.mark.parametrize("case", ROWS)
def test_rows_that_cannot_be_used(here, case):
    content, message = ROWS[case]
    Path("rows.jsonl").write_bytes(content)
    refused(message)


def test_bad_rows_that_are_to_be_dropped_stop_nothing_but_need_a_good_one_beside_them(here):
    Path("rows.jsonl").write_bytes(GOOD + b"\n{}\n")
    asked("text.on_bad_row=drop")
    Path("rows.jsonl").write_bytes(b"{}\n")
    refused("rows.jsonl: no rows that can be used; the first: rows.jsonl:1: ", "text.on_bad_row=drop")


def test_marks_and_windows_line_ends_of_rows_and_questions_are_read(here):
    for path, row in (("rows.jsonl", ROW), ("benchmarks/arc/ARC-Easy/test.jsonl", QUESTION)):
        Path(path).write_bytes(b"\xef\xbb\xbf" + json.dumps(row).encode() + b"\r\n")
    asked()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", b"{}", "a.json: a .json file must hold a list of rows"),
        ("a.json", b"[", "a.json: invalid JSON"),
        ("a.parquet", b"PAR1", "a.parquet: not a readable Parquet file"),
        ("a.csv", b"prompt,completion\n", r"a.csv: expected a file that ends in .jsonl, .json, .parquet"),
    ],
)
def test_files_of_other_kinds(here, name, content, message):
    Path(name).write_bytes(content)
    refused(message, f"data.train.sources=[{name}]")


def test_folders_that_datasets_has_saved(here):
    from datasets import Dataset, DatasetDict

    rows = Dataset.from_list([ROW])
    rows.save_to_disk("saved")
    asked("data.train.sources=[saved]")
    DatasetDict({"train": rows}).save_to_disk("dict")
    refused("dict: a saved DatasetDict; name the folder of one split: dict/… .train.", "data.train.sources=[dict]")
    next(Path("saved").glob("*.arrow")).unlink()
    refused("saved: not a readable folder of datasets' save_to_disk", "data.train.sources=[saved]")


@pytest.mark.parametrize("quoted", ["instruct_data='own rows/a b.jsonl'", 'instruct_data="own rows/a b.jsonl"'])
def test_a_setting_that_holds_blanks_is_put_into_quotes(here, quoted):
    Path("own rows").mkdir()
    Path("rows.jsonl").rename("own rows/a b.jsonl")
    asked("data.train.sources=['{instruct_data}']", f"set={quoted}")
    refused("single quotes", f"set={quoted.replace(chr(39), '').replace(chr(34), '')}")


TABLES = {
    "a column missing": ("name\tfamily\tsize\nn\tLlama\t1B\n", "t.tsv:1: no column source; columns are separated by tabs"),
    "blanks for tabs": ("name family size source\nn Llama 1B local:x\n", "t.tsv:1: no column name, family, size, source"),
    "a column twice": (MODELS.replace("keep_ratio", "size"), "t.tsv:1: two columns 'size'"),
    "a column of another name": (MODELS.replace("keep_ratio", "ratio") + "n\tLlama\t1B\tlocal:x\t\t\n", "unknown key 'ratio'"),
    "a cell too few": (MODELS + "n\tLlama\t1B\n", "t.tsv:2: expected 6 columns separated by tabs, found 3"),
    "a tab inside quotes": (MODELS + 'n\t"Lla\tma"\t1B\tlocal:x\t\t\n', "t.tsv:2: expected 6 columns .*, found 7"),
    "a quote left open": (MODELS + '"n\tLlama\t1B\tlocal:x\t\t\n', "t.tsv:2: name: '\"n' does not match"),
    "a row twice": (MODELS + "n\tLlama\t1B\tlocal:x\t\t\n" * 2, "t.tsv:3: 'n' stands in line 2 already"),
    "an empty file": ("", "t.tsv: empty; its first line names the columns"),
    "comments alone": ("# nothing\n", "t.tsv: empty; its first line names the columns"),
    "a ratio above one": (MODELS + "n\tLlama\t1B\tlocal:x\t\t1.5\n", "t.tsv:2: keep_ratio: '1.5' does not match"),
    "a source of no kind": (MODELS + "n\tLlama\t1B\tnowhere\t\t\n", "t.tsv:2: source: 'nowhere' does not match"),
}  # fmt: skip


@pytest.mark.parametrize("case", TABLES)
def test_a_table_that_is_none(here, case):
    content, message = TABLES[case]
    Path("t.tsv").write_text(content)
    refused(message, "models_file=t.tsv")


def test_marks_and_windows_line_ends_of_tables_are_read(here):
    text = MODELS + "n\tLlama\ttiny\tlocal:model\t\t\n"
    Path("t.tsv").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    asked("models_file=t.tsv", "models=[n]")


QUESTIONS = {
    "no rows": (b"\n", "benchmark arc_easy: benchmarks/arc/ARC-Easy/test.jsonl: no rows"),
    "a row cut": (b'{"id": "1", "ques', "test.jsonl:1: not a whole row of JSON .*: is the file cut"),
    "no object": (b"[1]\n", "test.jsonl:1: not an object but list"),
}


@pytest.mark.parametrize("case", QUESTIONS)
def test_questions_that_cannot_be_read(here, case):
    content, message = QUESTIONS[case]
    Path("benchmarks/arc/ARC-Easy/test.jsonl").write_bytes(content)
    refused(message)


def test_a_benchmark_without_its_files(here):
    shutil.rmtree("benchmarks/arc")
    refused("benchmark arc_easy: no file arc/.* in benchmarks_data benchmarks")
    refused("benchmarks_data: no folder nowhere", "benchmarks_data=nowhere")


COMMANDS = {
    "no configuration": (["nowhere.yaml"], "nowhere.yaml: no such file"),
    "a setting with a typo": (["x.yaml", "training.learning_rat=1"], "Did you mean 'learning_rate'"),
    "results that are a file": (["x.yaml"], "results: a file; results are to be written there"),
}


@pytest.mark.parametrize("case", COMMANDS)
def test_the_command_says_it_in_one_line(here, case):
    words, message = COMMANDS[case]
    if case.startswith("results"):
        Path("results").write_text("")
    command = [sys.executable, "-m", "sstoken.experiment.start", *words, "--", "--cores", "1"]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert done.returncode and re.search(message, done.stderr), done.stderr
    assert len(done.stderr.splitlines()) == 1 and "Traceback" not in done.stderr, done.stderr
