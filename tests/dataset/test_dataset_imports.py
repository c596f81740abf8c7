"""The data stage prepares rows without torch, `datasets` or transformers' models."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.dataset.standin import chat_row, data_file, model_folder

PROBE = """
import sys
from pathlib import Path
from job.config import load_settings
from job.dataset import ChatFormat, PrepareOptions, fetch, prepare
import job.evaluation.calls
light = set(sys.modules)
assert "transformers" not in light, "the renderer comes with the first template"
chat = ChatFormat.load(Path(sys.argv[1]))
files = fetch([sys.argv[2]], Path(sys.argv[3]))
work = Path(sys.argv[3]) / "prepared"
run = {"run_id": "r", "dataset_uri": "/d.jsonl", "output_uri": "/out"}
settings = load_settings(**run, max_seq_length=64, eval_fraction=0)
data = prepare(files, chat, PrepareOptions.from_settings(settings), work)
print(len(data.train), *sorted({"torch", "datasets", "trl", "peft", "boto3"} & set(sys.modules)))
auto = ("auto_factory", "modeling_auto", "tokenization_auto")
print(*sorted({f"transformers.models.auto.{name}" for name in auto} & set(sys.modules)))
"""


def test_rows_are_prepared_without_torch(tmp_path: Path) -> None:
    file = data_file(tmp_path / "data.jsonl", chat_row("Hello", "Hi."))
    model = model_folder(tmp_path / "model")
    command = [sys.executable, "-c", PROBE, str(model), str(file.path), str(tmp_path / "work")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["1", ""]
