"""A W&B server that refuses the key does not stop a training."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from training.rundir import RunFolder


class Refusal(BaseHTTPRequestHandler):
    """Answers everything with 401."""

    def do_POST(self):
        self.send_response(401)
        self.end_headers()
        self.wfile.write(b'{"errors": [{"message": "permission denied"}]}')

    do_GET = do_POST

    def log_message(self, *_):
        pass


@pytest.mark.slow
def test_a_refused_key_is_reported_once_and_the_run_goes_on_offline(tiny, tmp_path, command):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusal)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    host = f"http://127.0.0.1:{server.server_address[1]}"
    words = [str(tiny), "stages=[fit]", f"runs_dir={tmp_path}", "logging.wandb=online"]
    more = {"WANDB_BASE_URL": host, "WANDB_API_KEY": "b" * 40, "WANDB_MODE": "online"}
    answer = command(*words, cwd=tmp_path, **more)
    server.shutdown()
    assert answer.code == 0, answer.err
    assert answer.err.count("the run continues offline") == 1
    (kept,) = (answer.run / "wandb").glob("offline-run-*")
    assert kept.name.endswith(RunFolder(answer.run).status()["wandb_id"])


@pytest.mark.slow
@pytest.mark.parametrize("expected", ["WANDB_BASE_URL=localhost:8080", "WANDB_MODE=of"])
def test_a_variable_that_wandb_cannot_read_is_reported_once_and_the_run_goes_on_offline(
    tiny, tmp_path, command, expected
):
    name, _, value = expected.partition("=")
    words = [str(tiny), "stages=[fit]", f"runs_dir={tmp_path}", "logging.wandb=auto"]
    answer = command(*words, cwd=tmp_path, **{"WANDB_API_KEY": "b" * 40, "WANDB_MODE": "online", name: value})
    assert answer.code == 0, answer.err
    assert answer.err.count("the run continues offline") == 1
    assert f"({expected}: " in answer.err
    (kept,) = (answer.run / "wandb").glob("offline-run-*")
    assert kept.name.endswith(RunFolder(answer.run).status()["wandb_id"])
