"""The machine: limits of containers."""

import pytest

from yosinski_jax.base import machine


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{text}\n")


@pytest.mark.parametrize(
    "groups, files, expected",
    [
        ("0::/user/job", {"user/job/memory.max": 5 << 30, "user/memory.max": "max"}, 5 << 30),
        ("0::/user/job", {"user/job/memory.max": 5 << 30, "user/memory.max": 3 << 30}, 3 << 30),
        ("0::/of/the/host", {"memory.max": 2 << 30}, 2 << 30),  # inside of a container
        ("0::/", {"memory.max": "max"}, None),
        ("4:memory:/job\n0::/", {"memory/job/memory.limit_in_bytes": 1 << 30}, 1 << 30),
        ("4:cpu,memory:/x", {"memory/memory.limit_in_bytes": 7 << 30}, 7 << 30),
        ("4:cpu:/job", {"memory/job/memory.limit_in_bytes": 1 << 30}, None),
    ],
)
def test_memory_limits_of_control_groups(tmp_path, groups, files, expected):
    write(tmp_path / "cgroup", groups)
    for name, limit in files.items():
        write(tmp_path / "sys" / name, limit)
    assert machine._memory_limit(tmp_path / "cgroup", tmp_path / "sys") == expected
    assert machine._memory_limit(tmp_path / "absent", tmp_path / "sys") is None


def test_memory_is_no_more_than_the_limit(monkeypatch):
    whole = machine.memory()
    monkeypatch.setattr(machine, "_memory_limit", lambda: 1 << 20)
    assert machine.memory() == 1 << 20 < whole


def test_peak_counts_the_operations(monkeypatch):
    monkeypatch.setattr(machine, "_seconds", lambda work: 0.5)
    assert machine.matmul_peak("float32")() == 2 * 1024**3 / 0.5
