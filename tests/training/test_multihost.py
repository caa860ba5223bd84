"""Two processes through jax.distributed; eight devices; what the flags say."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from places import ROOT

from yosinski_jax.base.errors import UserError
from yosinski_jax.base.files import sealed, write_json
from yosinski_jax.training import checkpoints, multihost

pytestmark = pytest.mark.slow

# A sweep of one base and one transfer. Its last words are JSON.
SWEEP = """
import dataclasses, functools, json, os, sys, time
import jax
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", int(sys.argv[2]))
jax.config.update("jax_compilation_cache_dir", os.environ["TEST_COMPILE_CACHE"])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
from yosinski_jax.training import multihost
address, count, number = sys.argv[3:6]
if int(count) > 1:
    multihost.initialize("auto", address, int(count), int(number))
from yosinski_jax.data import dataset as data
from yosinski_jax.networks import convnets
from yosinski_jax.networks.network import Network
from yosinski_jax.study import recipes
from yosinski_jax.study.settings import Settings
from yosinski_jax.sweep import runner as sweep
from yosinski_jax.sweep import worker
from yosinski_jax.training.feeds import Streaming
from yosinski_jax.training.trainer import Trainer

class Slow(sweep.Silent):
    def progress(self, sweep, group, population):
        if len(sys.argv) > 6 and population.dispatched and population.jobs[0].copied:
            print("step", population.dispatched, flush=True)
            time.sleep(float(sys.argv[6]))

recipe = recipes.Recipe("test", learning_rate=2e-5, batch_size=16, iterations=24, evaluate_steps=6,
                        caffe_momentum=True, subtract_mean=True, crop=7, mirror=True)
if "PATIENCE" in os.environ:
    recipe = dataclasses.replace(
        recipe, evaluate_steps=2, validation=0.2, patience=int(os.environ["PATIENCE"])
    )
settings = Settings("digits", "random", "digits4", recipe, 4, seeds=(0,), layers=(2,),
                         treatments=("base", "AnB"), images_per_class=20)
made = sweep.Sweep(
    settings, data.load("digits"), lambda k: Network.of(convnets.make("digits4", k, (7, 7, 1))),
    sys.argv[1], replicas=int(os.environ.get("REPLICAS", 1)),
    trainer=functools.partial(
        Trainer, devices=jax.devices(), streaming=None if "REPLICAS" in os.environ else Streaming()
    ),
    display=Slow(), checkpoint_seconds=0.0)
try:
    rows = made.run()
except worker.Interrupted as e:
    sys.exit(100 + e.signum)
print(json.dumps([[r["name"], r["curve"], r["params_sha256"]] for r in rows]))
"""


def start(workdir, devices, count=1, sleep=None, **env):
    """The processes of one sweep."""
    with socket.socket() as s:
        s.bind(("localhost", 0))
        address = f"localhost:{s.getsockname()[1]}"
    common = [sys.executable, "-c", SWEEP, str(workdir), str(devices), address, str(count)]
    last = [] if sleep is None else [str(sleep)]
    env = os.environ | {"PYTHONPATH": str(ROOT)} | env
    return [
        subprocess.Popen(
            [*common, str(number), *last],
            env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for number in range(count)
    ]  # fmt: skip


def finish(processes):
    """The rows that each process printed last."""
    rows = []
    for process in processes:
        out, err = process.communicate(timeout=300)
        assert process.returncode == 0, err
        rows.append(json.loads(out.splitlines()[-1]))
    return rows


def until_saved(processes, workdir):
    """Waits until the transfer is in training and a save of it is complete."""
    process = processes[0]
    while True:
        line = process.stdout.readline()
        assert line, process.stderr.read()
        if list(Path(workdir).glob("running/k2-*/*/checksums.json")):
            return


def check_close(rows, expected):
    for (name, curve, _), (other, wanted, _) in zip(rows, expected, strict=True):
        assert (name, curve["step"]) == (other, wanted["step"])
        np.testing.assert_allclose(curve["loss"], wanted["loss"], rtol=1e-4)
        # One image of 220 at the border may fall on either side.
        np.testing.assert_allclose(curve["accuracy"], wanted["accuracy"], atol=0.005)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """One process, one device."""
    folder = tmp_path_factory.mktemp("alone")
    return folder, finish(start(folder, 1))[0]


def check_same_params(folder, other):
    for name in ("baseA", "baseB"):
        a, b = (checkpoints.load(f / "checkpoints" / "random-0" / name) for f in (folder, other))
        for layer in a["params"]:
            kernels = (x["params"][layer]["kernel"] for x in (a, b))
            np.testing.assert_allclose(*kernels, atol=1e-5)


def test_eight_devices_give_the_curve_of_one(alone, tmp_path):
    [rows] = finish(start(tmp_path, 8))
    check_close(rows, alone[1])
    check_same_params(tmp_path, alone[0])


def test_two_processes_killed_and_resumed_give_the_same(alone, tmp_path):
    processes = start(tmp_path, 1, count=2, sleep=0.3)
    until_saved(processes, tmp_path)
    for process in processes:
        process.kill()
        process.wait()
    assert not list(tmp_path.glob("records/random-0/*2*")), "killed too late for this test"
    ours, theirs = finish(start(tmp_path, 1, count=2))
    assert ours == theirs, "every process knows the same results"
    check_close(ours, alone[1])
    check_same_params(tmp_path, alone[0])
    assert len(list(tmp_path.glob("records/random-0/*.json"))) == 4
    assert not list(tmp_path.glob("running/*"))


def test_a_signal_to_one_stops_both_and_one_goes_on_alone(alone, tmp_path):
    processes = start(tmp_path, 1, count=2, sleep=0.3)
    until_saved(processes, tmp_path)
    processes[1].send_signal(signal.SIGTERM)
    began = time.monotonic()
    for process in processes:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 100 + signal.SIGTERM, err
    assert time.monotonic() - began < 120
    check_close(finish(start(tmp_path, 2))[0], alone[1])


@pytest.mark.parametrize("replicas", [1, 2])
def test_networks_in_memory_are_spread_over_processes(alone, tmp_path, replicas):
    """One or two networks on the devices of two processes see what streamed ones see."""
    ours, theirs = finish(start(tmp_path, 1, count=2, REPLICAS=str(replicas)))
    assert ours == theirs
    check_close(ours, alone[1])
    check_same_params(tmp_path, alone[0])


def test_early_stopping_in_two_processes_killed_and_resumed_is_the_same(tmp_path):
    env = {"PATIENCE": "3", "REPLICAS": "2"}
    ours, theirs = finish(start(tmp_path / "whole", 1, count=2, **env))
    assert ours == theirs
    assert any(curve["step"][-1] < 24 for _, curve, _ in ours), "none has stopped early"
    processes = start(tmp_path / "killed", 1, count=2, sleep=0.5, **env)
    until_saved(processes, tmp_path / "killed")
    for process in processes:
        process.kill()
        process.wait()
    assert not list((tmp_path / "killed").glob("records/random-0/*2*")), "killed too late"
    assert finish(start(tmp_path / "killed", 1, count=2, **env)) == [ours, theirs]


def test_an_error_of_process_0_ends_all(tmp_path):
    write_json(tmp_path / "settings.json", sealed({"dataset": "another"}))
    for process in start(tmp_path, 1, count=2):
        _, err = process.communicate(timeout=120)
        assert process.returncode == 1
        assert "was begun with other settings" in err


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("maybe",), "distributed=maybe: must be one of auto, on, off"),
        (("auto", "localhost:1"), "num_processes=None: is missing; give"),
        (("on", "localhost:1", 2, 2), "process_id=2: must be 0 … 1"),
        (("on", "localhost:1", 0, 0), "num_processes=0: must be at least 1"),
        (("on", "localhost", 2, 0), "coordinator_address=localhost: must be HOST:PORT"),
    ],
)
def test_flags_that_do_not_go_together(arguments, message):
    with pytest.raises(UserError, match=message):
        multihost.initialize(*arguments)


def test_auto_is_off_unless_the_environment_is_plain(monkeypatch):
    for name in ("JAX_COORDINATOR_ADDRESS", "OMPI_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "localhost")  # one host of its own is no pod
    multihost.initialize("auto")
    assert not multihost.several()
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    assert not multihost._announced(), "an interactive shell of a Slurm job"
    monkeypatch.setenv("SLURM_PROCID", "0")
    assert multihost._announced()


def test_alone_nothing_is_sent():
    assert multihost.leader() and not multihost.several()
    assert multihost.from_leader(lambda: {"a": 1}) == {"a": 1}
    assert multihost.broadcast({"x": 3}) == {"x": 3}
    assert multihost.Votes().take(15, True) == (15, True)


@pytest.mark.parametrize(("several", "code"), [(True, 1), (False, 7)])
def test_a_lost_process_is_one_line(several, code):
    program = f"""
import jax, sys
from yosinski_jax.training import multihost
multihost.several = lambda: {several}
try:
    with multihost.watching():
        raise jax.errors.JaxRuntimeError("UNKNOWN: Gloo all-reduce failed: Connection closed by peer\\nmore")
except jax.errors.JaxRuntimeError:
    sys.exit(7)
"""
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT
    )
    assert ended.returncode == code, ended.stderr
    assert ended.stderr.count("\n") == several
    assert ("another process of this sweep has ended" in ended.stderr) == several
