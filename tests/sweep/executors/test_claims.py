import importlib.util
import json
import os
import subprocess
import sys
import threading
import time

import fake_gcs
import pytest

from yosinski_jax.base.errors import UserError
from yosinski_jax.base.files import as_path
from yosinski_jax.sweep.executors import claims
from yosinski_jax.sweep.executors.claims import Claims, create_exclusively, held


@pytest.fixture(autouse=True)
def short_lease(monkeypatch):
    monkeypatch.setenv("YOSINSKI_JAX_LEASE", "0.3")


def elsewhere(path, **changed):
    """Rewrites a claim as that of another machine, whose processes cannot be looked at."""
    claim = json.loads(path.read_text()) | {"host": "elsewhere"} | changed
    path.write_text(json.dumps(claim))


def test_one_of_many_gets_a_claim(tmp_path):
    barrier, got = threading.Barrier(8), []

    def compete():
        mine = Claims(tmp_path)
        barrier.wait()
        got.append(mine.take("unit"))

    threads = [threading.Thread(target=compete) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (claim,) = [c for c in got if c is not None]
    assert claim.number == 1 and Claims(tmp_path).number("unit") == 1
    assert Claims(tmp_path).take("unit") is None
    claim.release()
    with Claims(tmp_path).take("unit") as again:
        assert again.number == 2


def test_a_file_is_created_whole_or_not_at_all(tmp_path):
    assert create_exclusively(tmp_path / "a" / "b", b"first")
    assert not create_exclusively(tmp_path / "a" / "b", b"second")
    assert (tmp_path / "a" / "b").read_bytes() == b"first"
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["b"], "nothing is left beside it"
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file/b: cannot be written"):
        create_exclusively(tmp_path / "file" / "b", b"")


def test_a_claim_without_a_heartbeat_is_taken_over_and_its_holder_learns_of_it(tmp_path):
    lost = threading.Event()
    mine = Claims(tmp_path).take("unit", on_lost=lost.set)
    other = Claims(tmp_path)
    end = time.monotonic() + 0.7
    while time.monotonic() < end:  # it beats: never free, however long one looks
        assert other.take("unit") is None
        time.sleep(0.05)
    assert json.loads(mine.path.read_text())["beat"] > 0
    dead = tmp_path / "dead" / "1.json"
    create_exclusively(dead, json.dumps({"host": "elsewhere", "process": 1, "beat": 5}).encode())
    assert other.take("dead") is None, "not before the heartbeat was seen to stand still"
    with held(other, "dead", lambda: False) as claim:
        assert claim.number == 2
    # A stopped process that wakes up finds the next number.
    create_exclusively(tmp_path / "unit" / "2.json", b"{}")
    assert lost.wait(5) and mine.lost.is_set()
    mine.release()
    assert json.loads((tmp_path / "unit" / "1.json").read_text()).get("released") is None


@pytest.mark.parametrize("skew", ["-600", "600"])
def test_clocks_of_other_machines_do_not_matter(tmp_path, monkeypatch, skew):
    """A claim made by a clock ten minutes off neither lasts longer nor ends sooner."""
    monkeypatch.setenv("YOSINSKI_JAX_CLOCK_SKEW", skew)
    mine = Claims(tmp_path).take("unit")
    elsewhere(mine.path)
    monkeypatch.delenv("YOSINSKI_JAX_CLOCK_SKEW")
    other = Claims(tmp_path)
    assert other.take("unit") is None
    mine._ended.set()  # it dies without a word
    mine._thread.join()
    with held(other, "unit", lambda: False) as claim:
        assert claim.number == 2


def test_a_process_of_this_machine_that_is_gone_needs_no_waiting(tmp_path, monkeypatch):
    monkeypatch.setenv("YOSINSKI_JAX_LEASE", "1000")
    code = (
        "import sys, os; from pathlib import Path; from yosinski_jax.sweep.executors.claims import Claims;"
        "Claims(Path(sys.argv[1])).take('unit'); os._exit(9)"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=claims.__file__.split("yosinski_jax")[0]
    )
    with Claims(tmp_path).take("unit") as claim:
        assert claim.number == 2
    # The same number of process, but another process.
    path = tmp_path / "again" / "1.json"
    mine = {"host": claims._here(), "process": os.getpid(), "born": "1"}
    create_exclusively(path, json.dumps(mine).encode())
    with Claims(tmp_path).take("again") as claim:
        assert claim.number == 2
    path.with_name("3.json").write_text(json.dumps(mine | {"born": claims._born(os.getpid())}))
    assert Claims(tmp_path).take("again") is None


def test_waiting_ends_when_there_is_nothing_left_to_do(tmp_path):
    mine, answers = Claims(tmp_path).take("unit"), iter([False, False, True])
    with held(Claims(tmp_path), "unit", lambda: next(answers)) as claim:
        assert claim is None
    mine.release()


def test_a_damaged_claim_is_dead_after_a_lease(tmp_path):
    create_exclusively(tmp_path / "unit" / "1.json", b"[1")
    other = Claims(tmp_path)
    assert other.take("unit") is None
    with held(other, "unit", lambda: False) as claim:
        assert claim.number == 2


@pytest.fixture
def bucket(monkeypatch):
    if importlib.util.find_spec("gcsfs") is None:  # not imported: it reads the address when it is
        pytest.skip("gcsfs is not installed")
    for name in ("TENSORSTORE_GCS_HTTP_URL", "STORAGE_EMULATOR_HOST"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)  # so that what `install` sets does not stay
    server = fake_gcs.Server()
    fake_gcs.install(server.url)
    yield as_path("gs://bucket/claims")
    server.shutdown()


def test_in_a_bucket_the_first_to_create_has_the_claim(bucket):
    """The bucket decides: a listing from before the other's claim does not help."""
    mine, late = Claims(bucket).take("unit"), Claims(bucket)
    late.number = lambda name: 0
    assert mine.number == 1 and late.take("unit") is None
    assert json.loads(mine.path.read_text())["token"] == mine._mine["token"]
    mine.release()
    with held(Claims(bucket), "unit", lambda: False) as claim:
        assert claim.number == 2
