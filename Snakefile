# The whole experiment: data -> references -> training with selection -> evaluation -> report.
from snakemake.utils import min_version

min_version("9.0")


# a --configfile is the whole configuration: laid over the default's it would inherit keys that it never names
if "models" not in config:

    configfile: "config/config.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/fetch.smk"
include: "workflow/rules/references.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/evaluate.smk"
include: "workflow/rules/audit.smk"
include: "workflow/rules/report.smk"


rule all:
    default_target: True
    input:
        REPORT,
        STAMPS,
    localrule: True


onstart:
    start()


onsuccess:
    sealed()
    show()


onerror:
    failed()
