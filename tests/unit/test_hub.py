"""The hub client against a hub on this machine: downloads, pins, moved branches, gates, broken files. Real HTTP, no network."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ONE, TWO = "1" * 40, "2" * 40
WEIGHTS = b"weights" * 100


class Hub(BaseHTTPRequestHandler):
    """As much of the hub's HTTP interface as a snapshot needs."""

    main, gated = ONE, ()

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        path = self.path.split("?")[0]
        if path.startswith("/api/"):
            parts = path.removeprefix("/api/").split("/")
            if len(parts) < 5:  # telemetry
                return self.fail(404, "EntryNotFound")
            _, owner, name, what, revision = parts[:5]
            commit = Hub.main if revision == "main" else revision
            if name == "unknown":
                return self.fail(404, "RepoNotFound")
            if commit not in (ONE, TWO):
                return self.fail(404, "RevisionNotFound")
            if what == "revision":
                return self.reply(json.dumps({"id": f"{owner}/{name}", "sha": commit, "siblings": []}).encode())
            lfs = {"oid": hashlib.sha256(WEIGHTS).hexdigest(), "size": len(WEIGHTS), "pointerSize": 1}
            tree = [
                {"type": "file", "path": "config.json", "size": 2, "oid": "0" * 40},
                {"type": "file", "path": "model.safetensors", "size": len(WEIGHTS), "oid": "0" * 40, "lfs": lfs},
            ]
            return self.reply(json.dumps(tree).encode())
        owner, name, _, commit, file = path.lstrip("/").split("/")
        if name in Hub.gated:
            return self.fail(401, "GatedRepo")
        body = WEIGHTS if file == "model.safetensors" else b"{}"
        etag = hashlib.sha256(body).hexdigest() if file == "model.safetensors" else "0" * 40
        return self.reply(body, {"ETag": f'"{etag}"', "X-Repo-Commit": commit})

    def fail(self, status, code):
        self.reply(b"{}", {"X-Error-Code": code}, status)

    def reply(self, body, headers=None, status=200):
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def hub(tmp_path):
    """Fetch one model from the hub on this machine, in a process of its own; returns (ok, output)."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Hub.main, Hub.gated = ONE, ()

    def fetch(repo, revision):
        code = (
            "import sys; from pathlib import Path; from sstoken.models.hub import snapshot\n"
            "found = snapshot(sys.argv[1], 'model', sys.argv[2], ['*'], lock=Path('hub.json'))\n"
            "print(found.commit, *(path.name for path in found.files(['*'])))"
        )
        settings = {
            "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": str(tmp_path / "home"),
            "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_OFFLINE": "0",
            "PYTHONPATH": str(Path(__file__).parents[2]),
        }  # fmt: skip
        environment = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy") and k != "HF_TOKEN"}
        done = subprocess.run(
            [sys.executable, "-c", code, repo, revision], cwd=tmp_path, env=environment | settings,
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        return done.returncode == 0, done.stdout + done.stderr

    fetch.cache = tmp_path / "home" / "hub"
    yield fetch
    server.shutdown()


def test_a_pinned_commit_is_fetched_and_checked(hub):
    assert hub("owner/model", ONE) == (True, f"{ONE} config.json model.safetensors\n")
    (blob,) = (hub.cache / "models--owner--model" / "blobs").glob("?" * 64)
    blob.chmod(0o600)
    blob.write_bytes(b"W" + WEIGHTS[1:])
    ok, text = hub("owner/model", ONE)
    assert not ok and f"{blob}: broken, its sha256 is" in text


def test_a_branch_that_moved_is_an_error_that_names_both_commits(hub, tmp_path):
    assert hub("owner/model", "main")[0]
    assert json.loads((tmp_path / "hub.json").read_text()) == {"model owner/model@main": ONE}
    Hub.main = TWO
    ok, text = hub("owner/model", "main")
    assert not ok and "has moved" in text and ONE in text and TWO in text


def test_a_gated_model_says_what_to_accept_and_where_the_token_goes(hub):
    Hub.gated = ("gated",)
    ok, text = hub("owner/gated", ONE)
    last = text.strip().splitlines()[-1]
    assert not ok and "model owner/gated is gated" in last
    for part in ("https://huggingface.co/owner/gated", "accept its conditions", "settings/tokens", "HF_TOKEN"):
        assert part in last


def test_unknown_repositories_and_commits_are_named(hub):
    ok, text = hub("owner/unknown", ONE)
    assert not ok and "owner/unknown is not there" in text
    ok, text = hub("owner/model", "3" * 40)
    assert not ok and f"has no commit {'3' * 40}, which is pinned here" in text
