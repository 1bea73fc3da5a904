import json
import os
import subprocess
import sys
from pathlib import Path

from .conftest import ROOT


def test_benchmark_of_the_teacher_measures(tmp_path: Path) -> None:
    output = tmp_path / "bench.json"
    command = [sys.executable, "scripts/bench_teacher.py", "--json", str(output)]
    sizes = ["--prompts", "40", "--many", "80", "--stock", "2", "--in-flight", "20"]
    done = subprocess.run(
        [*command, *sizes],
        cwd=ROOT,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    found = json.loads(output.read_text("utf8"))
    # So few prompts are mostly start and end: the targets are for 2,000.
    assert ("MISSED" in done.stdout) == (done.returncode == 1), done.stderr
    assert found["stock_answers_per_second"] < 5.5
    assert found["answers_per_second"] > 5 * found["stock_answers_per_second"]
    assert found["ideal_per_second"] == 100
    assert found["straggler_ratio"] < 1.3
    assert found["memory_ratio"] < 1.2
