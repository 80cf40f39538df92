"""README and the other papers of the repository: short, without placeholders, true to what is there."""

import re
import tomllib

import yaml


def test_readme_is_short_and_its_first_lines_say_what_was_found_and_what_was_not_run(root):
    lines = (root / "README.md").read_text().splitlines()
    assert len(lines) <= 120
    head = " ".join(lines[:10])
    assert "RHO-1" in head and "ssToken" in head and "embedded world" in head and "Not run" in head


def test_what_documents_point_to_is_there(root):
    pages = [
        root / "README.md",
        root / "CONTRIBUTING.md",
        root / "config" / "README.md",
        *(root / "docs").rglob("*.md"),
    ]
    for page in pages:
        text = page.read_text()
        for name in re.findall(r"`((?:docs|config|sstoken|tests|workflow|benchmarks)/[\w./-]+)`", text):
            known = (root / name).exists() or name in ("config/mine.yaml",)
            assert known, f"{page.relative_to(root)} names {name}"
        for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", text):
            assert (page.parent / link).exists(), f"{page.relative_to(root)} links to {link}"


def test_the_citation_names_the_three_papers_and_nothing_invented(root):
    cited = yaml.safe_load((root / "CITATION.cff").read_text())
    papers = [reference["url"] for reference in cited["references"]]
    assert papers == [f"https://arxiv.org/abs/{number}" for number in ("2510.18250", "2502.01968", "2404.07965")]
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    assert cited["version"] == project["version"] and cited["license"] == project["license"] == "Apache-2.0"
    assert "urls" not in project  # there is no public address to name


def test_the_licence_is_whole(root):
    text = (root / "LICENSE").read_text()
    assert "Apache License" in text and "END OF TERMS AND CONDITIONS" in text and len(text.splitlines()) > 190
