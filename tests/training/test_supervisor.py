"""A training ends with the process that started it, however that one ends, and nobody starts it twice."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock, Timeout

from nnunet_softlabel.training import supervisor

ROOT = Path(__file__).parents[2]
TRAINING = (  # with a worker of its own
    "import os, subprocess, sys, time\n"
    "subprocess.Popen([sys.executable, '-c', 'import os, sys, time;"
    'open(sys.argv[1] + "/worker", "w").write(str(os.getpid())); time.sleep(60)\', sys.argv[1]])\n'
    "open(sys.argv[1] + '/training', 'w').write(str(os.getpid()))\n"
    "time.sleep(60)"
)
# starts a supervised training, as a benchmark does, and waits
PARENT = """
import signal, subprocess, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background may have it ignored
lock, folder, training = sys.argv[1:]
supervisor = [sys.executable, "-m", "nnunet_softlabel.training.supervisor", lock]
process = subprocess.Popen(
    [*supervisor, sys.executable, "-c", training, folder], stdin=subprocess.PIPE, start_new_session=True
)
process.wait()
"""


def is_alive(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rsplit(")", 1)[1].split()[0] != "Z"


def wait_until(condition, seconds=120):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_training_and_its_workers_end_with_the_benchmark(tmp_path, end, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    lock = tmp_path / "lock"
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(lock), str(tmp_path), TRAINING], stderr=subprocess.DEVNULL
    )
    files = [tmp_path / name for name in ("training", "worker")]
    assert wait_until(lambda: all(path.is_file() and path.read_text() for path in files))
    pids = [int(path.read_text()) for path in files]
    assert all(map(is_alive, pids))
    assert supervisor_holds(lock)
    parent.send_signal(end)
    parent.wait(120)
    assert wait_until(lambda: not any(map(is_alive, pids)))
    assert wait_until(lambda: not supervisor_holds(lock))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the guard is a forked process")
@pytest.mark.parametrize("leads_group", [True, False])
def test_a_training_ends_with_its_supervisor(tmp_path, monkeypatch, leads_group):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    command = [sys.executable, "-m", "nnunet_softlabel.training.supervisor", str(tmp_path / "lock")]
    command += [sys.executable, "-c", TRAINING, str(tmp_path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=leads_group)
    files = [tmp_path / name for name in ("training", "worker")]
    assert wait_until(lambda: all(path.is_file() and path.read_text() for path in files))
    training, worker = (int(path.read_text()) for path in files)
    assert is_alive(training)
    process.kill()
    assert process.wait(120) == -signal.SIGKILL
    assert wait_until(lambda: not is_alive(training))
    if not leads_group:  # nobody knows the worker
        os.kill(worker, signal.SIGKILL)
    assert wait_until(lambda: not is_alive(worker))
    assert wait_until(lambda: not supervisor_holds(tmp_path / "lock"))


def supervisor_holds(path):
    try:
        with FileLock(path).acquire(timeout=0):
            return False
    except Timeout:
        return True


def test_a_training_that_another_process_runs_is_not_started(tmp_path, monkeypatch):
    monkeypatch.setattr(supervisor, "PATIENCE_SECONDS", 0.1)
    with FileLock(tmp_path / "lock"):
        code = supervisor.main([str(tmp_path / "lock"), sys.executable, "-c", "raise SystemExit"])
    assert code == supervisor.BUSY


@pytest.mark.parametrize("code", [0, 1, 3])
def test_the_exit_code_is_that_of_the_training(tmp_path, code):
    command = [sys.executable, "-m", "nnunet_softlabel.training.supervisor", str(tmp_path / "lock")]
    command += [sys.executable, "-c", f"raise SystemExit({code})"]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT)}, start_new_session=True
    )
    assert process.wait(20) == code


def test_a_program_that_is_not_there_is_a_line_in_the_log(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(supervisor.signal, "signal", lambda *args: None)
    assert supervisor.run_watched(["no-such-program"], 0) == 127
    assert capsys.readouterr().out.startswith("no-such-program: No such file")
