from pathlib import Path

from sstoken.jobs import imports, logged

with imports():
    from sstoken.experiment.layout import HELD_OUT
    from sstoken.jobs.prepare import store_heldout
    from sstoken.records.ticket import Ticket

with logged(snakemake.log[0]):
    params = snakemake.params
    (result,) = params.results
    store_heldout(
        params.sections[HELD_OUT],
        {name: section for name, section in params.sections.items() if name != HELD_OUT},
        Path(result["record"]),
        on_bad_row=params.on_bad_row,
        ticket=Ticket(**result["ticket"]),
    )
