"""The Hugging Face hub, on the machine that has network: snapshots in the hub's own cache, at pinned commits, checked.

Only ``fetch`` jobs come here. They leave plain files under ``results/{experiment}``, so that every other job runs with the
hub switched off (``HF_HUB_OFFLINE=1``). Where the cache is, and the token, are the hub library's own settings (``HF_HOME``,
``HF_TOKEN``).
"""

from __future__ import annotations

import fnmatch
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from sstoken.data.readers import file_rows, json_lines
from sstoken.records.documents import ConfigError
from sstoken.records.files import atomic_write, sha256_file

COMMIT = re.compile("[0-9a-f]{40}")
LFS_NAME = re.compile("[0-9a-f]{64}")  # the cache names a large file by its sha256
DATA_FILES = ("*.parquet", "*.jsonl", "*.json")


class HubError(ConfigError):
    """Something on the hub that cannot be had as asked: says what, and what to do."""


@dataclass(frozen=True)
class Snapshot:
    """One commit of a repository in the hub's cache. folder: of the files that were asked for. commit: 40 hex digits."""

    repo: str
    asked: str
    commit: str
    folder: Path

    def files(self, patterns: list[str]) -> list[Path]:
        """Files whose path below the folder matches any pattern, sorted."""
        paths = sorted(path for path in self.folder.rglob("*") if path.is_file())
        return [p for p in paths if any(fnmatch.fnmatch(p.relative_to(self.folder).as_posix(), q) for q in patterns)]


def snapshot(repo: str, kind: str, revision: str | None, patterns: list[str], *, lock: Path) -> Snapshot:
    """Bring the matching files of one commit into the cache, unless they are there.

    Args:
        kind: "model" or "dataset". revision: a commit, or a branch whose commit is then held in ``lock``.
        patterns: shell patterns of paths, as ``huggingface_hub.snapshot_download`` reads them.
        lock: JSON, ``{"kind repo@branch": commit}``: what a branch stood for when it was first fetched.

    Raises:
        HubError: gated, unknown or moved repositories, no network, broken files.
    """
    from huggingface_hub import is_offline_mode, snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        IncompleteSnapshotError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    asked = revision or "main"
    where = f"https://huggingface.co/{'datasets/' if kind == 'dataset' else ''}{repo}"
    try:
        # of a commit, huggingface_hub 1 asks the hub for its files even when it is switched off
        offline = is_offline_mode()
        folder = Path(
            snapshot_download(repo, repo_type=kind, revision=asked, allow_patterns=patterns, local_files_only=offline)
        )
    except (GatedRepoError, RepositoryNotFoundError) as error:
        gated = isinstance(error, GatedRepoError)
        why = "is gated" if gated else "is not there, or only for those whom its owner lets in"
        raise HubError(
            f"{kind} {repo} {why}: sign in at {where} and accept its conditions, make a token that may read at "
            "https://huggingface.co/settings/tokens, put it where this machine finds it (`hf auth login`, or the "
            "environment variable HF_TOKEN), and run the same command again"
        ) from error
    except RevisionNotFoundError as error:
        raise HubError(
            f"{kind} {repo}: {where} has no commit {asked}, which is pinned here; see its history"
        ) from error
    except (LocalEntryNotFoundError, IncompleteSnapshotError) as error:
        raise HubError(
            f"{kind} {repo} at {asked} is not whole in the hub's cache, and the hub cannot be reached: run "
            "`make fetch` with the same configuration on a machine with network and the same HF_HOME"
        ) from error
    found = Snapshot(repo, asked, folder.name, folder)
    _hold(found, kind, lock)
    for path in found.files(patterns):
        name = path.resolve().name
        if LFS_NAME.fullmatch(name) and (content := sha256_file(path)) != name:
            raise HubError(f"{path.resolve()}: broken, its sha256 is {content}; delete it and fetch again")
    return found


def _hold(found: Snapshot, kind: str, lock: Path) -> None:
    """A branch is followed once: from then on it stands for the commit that it stood for."""
    if COMMIT.fullmatch(found.asked):
        if found.commit != found.asked:
            raise HubError(f"{kind} {found.repo}: pinned to commit {found.asked}, the hub gave {found.commit}")
        return
    key = f"{kind} {found.repo}@{found.asked}"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(lock.with_name(f".{lock.name}.lock")):
        held = json.loads(lock.read_text()) if lock.exists() else {}
        if (before := held.setdefault(key, found.commit)) != found.commit:
            raise HubError(
                f"{key} has moved: this experiment began with commit {before}, now it is {found.commit}. To go on with "
                f"the old one, pin it; to take the new one, begin another experiment (or delete the line in {lock})"
            )
        with atomic_write(lock) as temporary:
            temporary.write_text(json.dumps(held, indent=1, sort_keys=True) + "\n")


def dataset_rows(
    repo: str, revision: str | None, config: str | None, split: str, *, lock: Path, data_files: str | None = None
) -> tuple[Snapshot, Iterator[dict]]:
    """The rows of one split, read from the files that the data set's card names for it.

    Args:
        config: the card's configuration; None = its default one. data_files: this file instead of the card's.

    Raises:
        HubError: no file of that split.
    """
    card = None
    if data_files is None:
        card = snapshot(repo, "dataset", revision, ["README.md"], lock=lock)
    patterns = [data_files] if data_files else _patterns(card.folder / "README.md", config, split)
    found = snapshot(repo, "dataset", revision, patterns or list(DATA_FILES), lock=lock)
    files = found.files(patterns or list(DATA_FILES))
    if not patterns:  # no card: a file belongs to the configuration whose folder it lies in, to the split that it names
        files = [path for path in files if config is None or config in path.relative_to(found.folder).parts]
        named = [path for path in files if re.search(rf"(^|[^a-z]){split}([^a-z]|$)", path.name)]
        files = named or (files if len(files) == 1 else [])
    if not files:
        raise HubError(
            f"dataset {repo} at {found.commit}: no file of split {split!r}"
            f"{f' of configuration {config!r}' if config else ''} (looked for {', '.join(patterns or DATA_FILES)})"
        )
    return found, (row for file in files for row in _rows(file))


def _rows(file: Path) -> Iterator[dict]:
    with open(file, "rb") as start:
        lines = file.suffix == ".json" and start.read(1) == b"{"  # on the hub, JSON lines are often called .json
    for place, row in json_lines(file) if lines else file_rows(file):
        if not isinstance(row, dict):
            raise HubError(f"{place}: {row if isinstance(row, str) else 'not an object'}")
        yield row


def _patterns(card: Path, config: str | None, split: str) -> list[str]:
    """Shell patterns of a split's files, from the card's ``configs``; [] where the card has none."""
    from huggingface_hub import DatasetCard

    if not card.is_file():
        return []
    configs = DatasetCard.load(card).data.to_dict().get("configs") or []
    names = [entry.get("config_name") for entry in configs]
    wanted = config or ("default" if "default" in names else next(iter(names), None))
    if config is not None and configs and config not in names:
        raise HubError(f"{card}: no configuration {config!r}; it has {', '.join(map(str, names))}")
    for entry in configs:
        if entry.get("config_name") == wanted:
            files = entry.get("data_files")
            files = files if isinstance(files, list) else [files]
            found = []
            for item in filter(None, files):
                item = item if isinstance(item, dict) else {"split": "train", "path": item}
                if item.get("split") == split:
                    found += item["path"] if isinstance(item["path"], list) else [item["path"]]
            return found
    return []
