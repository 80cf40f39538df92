"""Pages that are made, not written: the front page from README, the keys from the schema, the commands from their help."""

import contextlib
import io
import sys
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))


def on_files(files, config):
    readme = (ROOT / "README.md").read_text().replace("](docs/", "](")
    made = {
        "index.md": readme,
        "reference/configuration.md": (ROOT / "config" / "README.md").read_text(),
        "reference/command-line.md": command_line(),
    }
    for name, text in made.items():
        files.append(File.generated(config, name, content=text))
    return files


def command_line():
    from sstoken.cli import main

    pages = []
    commands = [
        [],
        *(
            [name]
            for name in (
                "methods",
                "doctor",
                "plan",
                "status",
                "report",
                "audit",
                "explain",
                "show",
                "compare",
                "results",
            )
        ),
    ]
    for words in commands:
        shown = io.StringIO()
        with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
            main([*words, "--help"])
        pages.append(f"## sstoken {' '.join(words)}\n\n```text\n{shown.getvalue()}```")
    return "# Command line\n\n" + "\n\n".join(pages) + "\n"
