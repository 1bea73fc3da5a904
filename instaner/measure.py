"""What a pipeline needs: time, memory and energy, measured in a process of its own.

At the top stands only what the measured process has to import: the memory is to be
that of the pipeline.
"""

import itertools
import json
import logging
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import spacy
from spacy.language import Language
from spacy.util import import_file

from .errors import InstaNERError

_WARM_UP = 16  # texts
_LATENCY_SECONDS = 5.0
_LATENCY_TEXTS = 200
_KIB = 1024  # bytes

_ENERGY_METHODS = {
    "intel_rapl": "the processor's own counters (RAPL), which count all that runs on "
    "it, and memory by a model",
    "cpu_load": "the processor's nominal power (TDP) times the share of it that the "
    "pipeline kept busy, and memory by a model: an estimate that can be wrong by a "
    "factor of two and more",
}
_OTHER_METHOD = "the model of the machine, which can be wrong by a factor of two"
_NO_METER = "not measured: pip install codecarbon"


def measure(
    source: str,
    texts: Iterable[str],
    *,
    code: Path | None = None,
    gpu_id: int = -1,
    seconds: float = 3.0,
) -> dict[str, Any]:
    """Measure a pipeline in a new process that does nothing else. It inherits the
    environment, so what is offline here is offline there. Its memory and loading are
    those of spaCy as it is installed here: it imports torch and plugins of its own
    (spacy-transformers) where they are, even for a pipeline that needs none.

    source (str): Path of a config file, of a saved pipeline's folder, or the name of
        an installed pipeline package, without llm components.
    texts (Iterable[str]): Texts to measure on.
    code (Optional[Path]): Python file with registered functions that it needs.
    gpu_id (int): GPU to run on, or -1 for the CPU.
    seconds (float): For how long the texts are repeated, at least once, to be timed
        and again for their energy.
    RETURNS (Dict[str, Any]): words_per_second (of nlp.pipe, warmed up), latency_p50 and
        latency_p95 (seconds for one text alone), texts (timed), cores, load_seconds,
        peak_memory (bytes, before energy is measured; None on Windows),
        kwh_per_million_words (None without codecarbon), energy_method and device
        ("cpu" or "gpu").
    RAISES (InstaNERError): If there are no texts, the pipeline has an llm component,
        or it cannot be loaded or run.
    """
    from .pipeline import find_config, get_llm_names, read_config

    path = find_config(source)
    if get_llm_names(read_config(source)):
        raise InstaNERError(
            f"{source} has an llm component, whose speed is that of its server. Only "
            "a pipeline that asks no LLM is measured."
        )
    texts = list(texts)
    if not any(text.strip() for text in texts):
        raise InstaNERError(f"There are no texts to measure {source} on.")
    task = {
        "path": str(path if Path(source).is_file() else path.parent),
        "texts": texts,
        "code": None if code is None else str(code),
        "gpu_id": gpu_id,
        "seconds": seconds,
    }
    done = subprocess.run(
        [sys.executable, "-m", "instaner.measure"],
        input=json.dumps(task),
        capture_output=True,
        text=True,
        encoding="utf8",
        errors="replace",
    )
    result: dict[str, Any] = {}
    if done.returncode == 0 and done.stdout.strip():
        result = json.loads(done.stdout.splitlines()[-1])
    if "words_per_second" not in result:
        reason = result.get("error") or (done.stderr.strip().splitlines() or [""])[-1]
        raise InstaNERError(
            f"{source} cannot be measured: {reason or 'its process was ended'} (exit "
            f"status {done.returncode})."
        )
    return result


def main() -> None:
    """Measure what standard input names, and write the result to standard output."""
    task = json.load(sys.stdin)
    try:
        result = _measure(**task)
    except Exception as err:  # whatever a pipeline raises
        result = {"error": " ".join(f"{type(err).__name__}: {err}".split())}
    sys.stdout.write(f"\n{json.dumps(result)}\n")


def _measure(
    path: str, texts: list[str], code: str | None, gpu_id: int, seconds: float
) -> dict[str, Any]:
    if gpu_id >= 0:
        spacy.require_gpu(gpu_id)
    if code is not None:
        import_file("python_code", Path(code))
    start = time.perf_counter()
    nlp = _load(path)
    load_seconds = time.perf_counter() - start
    list(nlp.pipe(texts[:_WARM_UP]))
    words, taken = _repeat(nlp, texts, seconds)
    latencies = sorted(_time_single(nlp, texts))
    peak_memory = get_peak_memory()  # before the meter's own is added
    kwh, energy_method = _weigh(lambda: _repeat(nlp, texts, seconds)[0], gpu_id)
    return {
        "words_per_second": round(words / taken, 1),
        "latency_p50": _get_percentile(latencies, 0.5),
        "latency_p95": _get_percentile(latencies, 0.95),
        "texts": len(texts),
        "cores": _count_cores(),
        "load_seconds": round(load_seconds, 3),
        "peak_memory": peak_memory,
        "kwh_per_million_words": kwh,
        "energy_method": energy_method,
        "device": "cpu" if gpu_id < 0 else "gpu",
    }


def _load(path: str) -> Language:
    if Path(path).is_dir():
        return spacy.load(path)
    from .pipeline import load_pipeline

    return load_pipeline(path)


def _repeat(nlp: Language, texts: list[str], seconds: float) -> tuple[int, float]:
    """RETURNS (Tuple[int, float]): Words, and the seconds that they took."""
    words, taken = 0, 0.0
    start = time.perf_counter()
    while not words or taken < seconds:
        words += sum(len(doc) for doc in nlp.pipe(texts))
        taken = time.perf_counter() - start
    return words, taken


def _time_single(nlp: Language, texts: list[str]) -> Iterable[float]:
    end = time.perf_counter() + _LATENCY_SECONDS
    for text in itertools.islice(texts, _LATENCY_TEXTS):
        start = time.perf_counter()
        if start > end:
            return
        nlp(text)
        yield time.perf_counter() - start


def _get_percentile(ordered: list[float], share: float) -> float:
    # By the nearest rank: a time that was measured.
    return round(ordered[math.ceil(share * len(ordered)) - 1], 6)


def _count_cores() -> int:
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def get_peak_memory() -> int | None:
    """RETURNS (Optional[int]): Most bytes of memory that this process has held."""
    if sys.platform == "win32":
        return None
    status = Path("/proc/self/status")
    if status.exists():
        # On Linux, getrusage also counts what the parent held when it forked.
        for line in status.read_text("utf8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * _KIB
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return int(peak) if sys.platform == "darwin" else int(peak) * _KIB


def _weigh(count_words: Callable[[], int], gpu_id: int) -> tuple[float | None, str]:
    """RETURNS (Tuple[Optional[float], str]): kWh per million words of a function that
    returns how many it read, if it can be measured, and how it was.
    """
    try:
        from codecarbon import OfflineEmissionsTracker
    except ImportError:
        return None, _NO_METER
    logging.getLogger("codecarbon").setLevel(logging.CRITICAL)
    # What a user's own settings of codecarbon say of the machine holds, but no file is
    # written, no log, and nothing is sent.
    tracker = OfflineEmissionsTracker(
        output_methods=[],
        emissions_endpoint=None,
        log_level="critical",
        allow_multiple_runs=True,
        tracking_mode="process",
        measure_power_secs=1,
        gpu_ids=[] if gpu_id < 0 else [gpu_id],
        force_carbon_intensity_g_co2e_kwh=0,  # the CO2 is ours to find
    )
    tracker.start()
    words = count_words()
    tracker.stop()
    data = getattr(tracker, "final_emissions_data", None)  # it hides its errors
    kwh = data.cpu_energy + data.ram_energy if data else 0.0
    if data and gpu_id >= 0:
        kwh += data.gpu_energy
    if not kwh or not words:
        return None, "not measured: codecarbon found no way to"
    modes = {getattr(part, "_mode", "") for part in tracker._hardware}
    method = next((m for k, m in _ENERGY_METHODS.items() if k in modes), _OTHER_METHOD)
    if gpu_id >= 0:
        method = f"the GPU's own counter; for the rest {method}"
    return kwh / words * 1_000_000, f"codecarbon, by {method}"


if __name__ == "__main__":
    main()
