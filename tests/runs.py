import hashlib
import json
from pathlib import Path

import pyarrow.compute as pc
import pyarrow.parquet as pq

from thaw.run_folder import RunFolder


def outcome(run: RunFolder) -> tuple[str, tuple[str, ...]]:
    """What must come out the same again: SHA-256 of the weights, and each epoch's figures but for its seconds."""
    weights = hashlib.sha256((run.model / "model.safetensors").read_bytes()).hexdigest()
    return weights, tuple(line.rpartition(",")[0] for line in run.metrics.read_text().splitlines())


def without_test(folder: Path) -> RunFolder:
    """The copy of a run at a folder, as if it had been trained without test images."""
    run = RunFolder(folder)
    values = json.loads(run.evaluation.read_text(encoding="utf-8"))
    del values["test"]
    run.evaluation.write_text(json.dumps(values), encoding="utf-8")
    table = pq.read_table(run.predictions)
    pq.write_table(table.filter(pc.equal(table.column("split"), "val")), run.predictions)
    return run
