import json
import subprocess
import sys
import time
from pathlib import Path

from thaw.distributed.launcher import ENDED, Launcher


def of_torchrun(folder: Path, **more: str) -> Launcher:
    file = folder / "launch" / "attempt_0" / "0" / "error.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    return Launcher.of({"TORCHELASTIC_ERROR_FILE": str(file), "TORCHELASTIC_RESTART_COUNT": "2", **more})


def test_a_launch_has_the_name_that_the_user_gave_it_or_one_of_its_own(tmp_path: Path) -> None:
    assert of_torchrun(tmp_path, TORCHELASTIC_RUN_ID="job-17").name == "job-17"
    unnamed = of_torchrun(tmp_path, TORCHELASTIC_RUN_ID="none", TORCHELASTIC_USE_AGENT_STORE="True")
    assert unnamed.name == str(tmp_path / "launch") and unnamed.restarts == 2 and unnamed.keeps_store
    assert Launcher.of({"RANK": "0"}) == Launcher()


def test_a_cluster_says_the_name_of_its_launch_and_how_often_it_restarted() -> None:
    found = Launcher.of({"THAW_LAUNCH": "abc", "THAW_RESTARTS": "1", "TORCHELASTIC_RUN_ID": "other"})
    assert found == Launcher("abc", 1, is_cluster=True)


def test_torchrun_hears_the_first_sentence_also_after_a_restart(tmp_path: Path) -> None:
    launch = of_torchrun(tmp_path)
    assert not launch.is_refused()
    launch.refuse("the first")
    launch.refuse("the second")
    assert launch.error_file and launch.is_refused()
    assert json.loads(launch.error_file.read_text())["message"]["message"] == "the first"
    Launcher("abc").refuse("nobody hears it")


def test_a_process_on_a_cluster_ends_with_what_started_it() -> None:
    program = (
        "import time; from thaw.distributed.launcher import Launcher; Launcher(is_cluster=True).end_with_launch(); "
    )
    command = [sys.executable, "-c", f"{program}print('begun', flush=True); time.sleep(60)"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout and process.stdout.readline() == b"begun\n"
        time.sleep(0.2)
        assert process.poll() is None
        process.communicate(timeout=20)
    assert process.returncode == ENDED
