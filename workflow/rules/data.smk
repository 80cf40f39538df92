# Models, instruction rows, tokens.


rule pretrain:
    output:
        f"{ROOT}/bases/{{base}}/base.json",
    log:
        f"{ROOT}/logs/pretrain/{{base}}.log",
    benchmark:
        f"{ROOT}/logs/pretrain/{{base}}.benchmark.tsv"
    priority: EARLY
    conda:
        "../envs/sstoken.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=120,
    params:
        share=lambda w: CONFIG["world"]["pretrain_share"],
    message:
        "pre-train {wildcards.base}"
    script:
        "../scripts/pretrain.py"


rule model:
    input:
        lambda w: names(filter(None, [GRID.base_record(w.model)])),
    output:
        f"{ROOT}/models/{{model}}/model.json",
    log:
        f"{ROOT}/logs/model/{{model}}.log",
    benchmark:
        f"{ROOT}/logs/model/{{model}}.benchmark.tsv"
    wildcard_constraints:
        model=any_of(name for name in GRID.models if name not in GRID.hub.models),
    priority: EARLY
    conda:
        "../envs/sstoken.yaml"
    threads: 1
    resources:
        mem_mb=8000,
        runtime=120,
    params:
        entry=lambda w: asdict(GRID.models[w.model]),
        bases=str(GRID.bases) if GRID.bases else None,
    message:
        "model {wildcards.model}"
    script:
        "../scripts/model.py"


rule world:
    output:
        f"{ROOT}/data/world/world.json",
    log:
        f"{ROOT}/logs/world.log",
    benchmark:
        f"{ROOT}/logs/world.benchmark.tsv"
    priority: EARLY
    conda:
        "../envs/sstoken.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        seed=(CONFIG["world"] or {}).get("seed"),
        options=(CONFIG["world"] or {}).get("options"),
    message:
        "generate the embedded world"
    script:
        "../scripts/world.py"


rule tokens:
    input:
        model=f"{ROOT}/models/{{model}}/model.json",
        data=lambda w: names(file for name in datasets(w) for file in GRID.dataset_inputs(name)),
    output:
        tokens=[f"{ROOT}/tokens/{{model}}/{name}.safetensors" for name in DATASETS],
        records=[f"{ROOT}/tokens/{{model}}/{name}.json" for name in DATASETS],
    log:
        f"{ROOT}/logs/tokens/{{model}}.{'-'.join(DATASETS)}.log",
    benchmark:
        f"{ROOT}/logs/tokens/{{model}}.{'-'.join(DATASETS)}.benchmark.tsv"
    priority: EARLY
    conda:
        "../envs/sstoken.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=120,
    params:
        sections=lambda w: {name: GRID.dataset(name) for name in datasets(w)},
        text=CONFIG["text"],
    message:
        f"tokens of {', '.join(DATASETS)} for {{wildcards.model}}".replace("{dataset}", "{wildcards.dataset}")
    script:
        "../scripts/tokens.py"
