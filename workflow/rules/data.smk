# Models, instruction rows, tokens.


rule pretrain:
    input:
        order("pretrain", "waits"),
    output:
        touch(f"{ROOT}/jobs/pretrain/{{job}}.done"),
    log:
        f"{ROOT}/logs/pretrain/{{job}}.log",
    benchmark:
        f"{ROOT}/logs/pretrain/{{job}}.benchmark.tsv"
    priority: soon("pretrain")
    conda:
        "../envs/sstoken.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=120,
    params:
        title=order("pretrain", "title"),
        results=order("pretrain", "results"),
        share=(CONFIG["world"] or {}).get("pretrain_share"),
        facts=GRID.facts,
    message:
        "pre-train {params.title}"
    script:
        "../scripts/pretrain.py"


rule model:
    input:
        order("model", "waits"),
    output:
        touch(f"{ROOT}/jobs/model/{{job}}.done"),
    log:
        f"{ROOT}/logs/model/{{job}}.log",
    benchmark:
        f"{ROOT}/logs/model/{{job}}.benchmark.tsv"
    priority: soon("model")
    conda:
        "../envs/sstoken.yaml"
    threads: 1
    resources:
        mem_mb=8000,
        runtime=120,
    params:
        title=order("model", "title"),
        results=order("model", "results"),
        entry=lambda w: asdict(GRID.models[order("model", "model")(w)]),
        bases=str(GRID.bases) if GRID.bases else None,
    message:
        "model {params.title}"
    script:
        "../scripts/model.py"


rule world:
    input:
        order("world", "waits"),
    output:
        touch(f"{ROOT}/jobs/world/{{job}}.done"),
    log:
        f"{ROOT}/logs/world/{{job}}.log",
    benchmark:
        f"{ROOT}/logs/world/{{job}}.benchmark.tsv"
    priority: soon("world")
    conda:
        "../envs/sstoken.yaml"
    threads: 1
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        title=order("world", "title"),
        results=order("world", "results"),
        seed=lambda w: GRID.world_seed(order("world", "results")(w)[0]["key"][0]),
        rows_only=lambda w: order("world", "results")(w)[0]["key"] != [None],
        options=lambda w: GRID.world_options(*order("world", "results")(w)[0]["key"][1:]),
    message:
        "generate the embedded world {params.title}"
    script:
        "../scripts/world.py"


rule heldout:
    input:
        order("heldout", "waits"),
    output:
        touch(f"{ROOT}/jobs/heldout/{{job}}.done"),
    log:
        f"{ROOT}/logs/heldout/{{job}}.log",
    benchmark:
        f"{ROOT}/logs/heldout/{{job}}.benchmark.tsv"
    priority: soon("heldout")
    conda:
        "../envs/sstoken.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=60,
    params:
        results=order("heldout", "results"),
        sections={name: GRID.dataset(name) for name in CONFIG["data"] or {}},
        on_bad_row=CONFIG["text"]["on_bad_row"],
    message:
        "hold rows out"
    script:
        "../scripts/heldout.py"


rule tokens:
    input:
        order("tokens", "waits"),
    output:
        touch(f"{ROOT}/jobs/tokens/{{job}}.done"),
    log:
        f"{ROOT}/logs/tokens/{{job}}.log",
    benchmark:
        f"{ROOT}/logs/tokens/{{job}}.benchmark.tsv"
    priority: soon("tokens")
    conda:
        "../envs/sstoken.yaml"
    threads: 1
    resources:
        mem_mb=4000,
        runtime=120,
    params:
        title=order("tokens", "title"),
        model=order("tokens", "model"),
        folder=lambda w: str(GRID.model_record(order("tokens", "model")(w)).parent),
        asked=each_result("tokens", tokens_asked),
        text=CONFIG["text"],
    message:
        "tokens for {params.title}"
    script:
        "../scripts/tokens.py"
