import socket
import sys

import pytest
import units
from places import ROOT

from yosinski_jax.base.errors import UserError
from yosinski_jax.sweep.executors import drive
from yosinski_jax.sweep.executors import ray as on_ray


def test_without_ray_the_command_that_installs_it_is_told(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r'needs ray.*pip install "yosinski-jax\[ray\]"'):
        on_ray.Ray(tmp_path)


def test_an_address_that_is_none_or_does_not_answer(tmp_path):
    pytest.importorskip("ray", reason="Ray is not installed")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(UserError, match=f"ray_address={address}: does not answer"):
            on_ray.Ray(tmp_path, address=address)
    for wrong in ("here", "host:", ":6379", "host:99999999"):
        with pytest.raises(UserError, match="must be auto or HOST:PORT"):
            on_ray.Ray(tmp_path, address=wrong)


@pytest.fixture(scope="module")
def cluster():
    """A cluster of this machine for all tests of this file: it takes seconds to start."""
    pytest.importorskip("ray", reason="Ray is not installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT / "tests"))
        ray = on_ray.connect(None, cpus=2)
        patch.setattr(on_ray, "connect", lambda *_: ray)
        patch.setattr(on_ray.Ray, "close", lambda self: None)
        yield ray
        ray.shutdown()


def run(workdir, some, executor):
    done, told = {}, []
    failures = drive.drive(
        some, executor, workdir, finished=lambda o: done.update({o.unit.id: o.value}),
        tell=told.append,
    )  # fmt: skip
    return done, told, {f.unit.id for f in failures}


@pytest.mark.parametrize("shared", [True, False])
def test_units_run_on_the_cluster_with_and_without_a_shared_workdir(cluster, tmp_path, shared):
    executor = on_ray.Ray(tmp_path, shared=shared)
    assert executor.workers == 2
    some = [units.write("a", "text"), units.copy("a", "x")]
    if shared:  # an unshared folder cannot count its starts from one try to the next
        some += [units.misbehave("d", 1, "SIGKILL"), units.misbehave("e", 99, "raise")]
    done, told, failures = run(tmp_path, some, executor)
    assert done["a"] == "text" and (tmp_path / "x").read_text() == "text!"
    assert not list(tmp_path.glob(".probe*"))
    if shared:
        assert done["d"] == "at last" and failures == {"e"}
        assert any("killed by SIGKILL" in line and "(on " in line for line in told)
        assert "e is no good" in (tmp_path / "failed" / "e.json").read_text()
        assert "Traceback" in (tmp_path / "logs" / "e.log").read_text()


def test_a_workdir_that_a_machine_does_not_see_is_found_before_anything_is_trained(
    cluster, tmp_path, monkeypatch
):
    blind = lambda probe: "FileNotFoundError: [Errno 2] No such file or directory"
    monkeypatch.setattr(on_ray, "_look", blind)
    with pytest.raises(UserError, match=r"not visible on .*shared_workdir=False"):
        on_ray.Ray(tmp_path)
    assert not list(tmp_path.iterdir())


def test_more_than_any_machine_has_is_refused(cluster, tmp_path):
    with pytest.raises(
        UserError, match=r"group_gpus=2 .*no machine of the cluster .*\(2 CPU, 0 GPU"
    ):
        on_ray.Ray(tmp_path, on_ray.Share(gpus=2))
