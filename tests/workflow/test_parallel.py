"""`parallel` in a configuration: the workflow trains a chain on two processes as it does on one."""

import json

import yaml
from safetensors.torch import load_file


def chain(workflow, root, name, **changes):
    """A self-evolving chain of two parts and nothing random in its steps."""
    methods = yaml.safe_load((root / "sstoken" / "selection" / "methods" / "methods.yaml").read_text())
    methods["methods"]["tokencleaning-self-evolving"]["parts"] = 2
    (workflow.folder / "methods.yaml").write_text(yaml.safe_dump(methods))
    document = yaml.safe_load(
        workflow.configuration(
            name, models=["tiny-llama"], methods=["tokencleaning-self-evolving"], seeds=[0], benchmarks=["arc_easy"],
            runs_in_one_job=1,
            methods_file="methods.yaml", **changes,
        ).read_text()
    )  # fmt: skip
    document["data"]["train"]["limit"] = 42  # two parts of 21: the last micro-batches are not full
    document["training"] |= {"adapter": {"rank": 4, "alpha": 8, "dropout": 0}, "gradient_checkpointing": True}
    path = workflow.folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(document))
    workflow.run(path)  # whole: `--until train` ends with the first part, which the next one's job waits for
    return workflow.results(name) / "runs" / "tiny-llama" / "tokencleaning-self-evolving" / "seed0"


def test_a_chain_on_two_processes_is_the_chain_on_one(workflow, root, monkeypatch):
    # as a thread of the group may do while the interpreter of a finished rank shuts down
    abort = 'import atexit, os\nif "LOCAL_RANK" in os.environ:\n    atexit.register(os.abort)\n'
    (workflow.folder / "sitecustomize.py").write_text(abort)
    monkeypatch.setenv("PYTHONPATH", str(workflow.folder))
    alone = chain(workflow, root, "alone")
    sharded = chain(workflow, root, "sharded", parallel={"tiny": {"gpus": 2, "strategy": "fsdp"}})
    for part in (".", "part0"):
        one, two = (load_file(folder / part / "selection.safetensors") for folder in (alone, sharded))
        assert one["keep"].equal(two["keep"]) and one["offset"].equal(two["offset"])
        own, other = (load_file(folder / part / "adapter_model.safetensors") for folder in (alone, sharded))
        assert own.keys() == other.keys()
        assert max((own[key] - other[key]).abs().max().item() for key in own) < 1e-4
    assert not one["keep"].all() or part == "part0"
    first, second = (json.loads((folder / "run.json").read_text()) for folder in (alone, sharded))
    assert second["parallel"] == {"gpus": 2, "strategy": "fsdp"} and first["parallel"]["gpus"] == 1
    assert first["counted"] == second["counted"] and first["steps"] == second["steps"]


def test_a_step_that_cannot_be_shared_evenly_is_refused_before_any_job(workflow):
    path = workflow.configuration("uneven", parallel={"tiny": {"gpus": 3}})
    text = workflow.run(path, ok=False)
    assert "parallel.tiny: 3 GPUs cannot share training.accumulation 2 evenly" in text
    assert not workflow.results("uneven").exists()
