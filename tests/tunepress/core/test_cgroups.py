"""cgroups: the limits of a container, of v1 and of v2, on the process's own group and on those that contain it."""

import os
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from stages.train import estimate
from tunepress.core import cgroups, cpu
from tunepress.core.cgroups import UNLIMITED, cpu_share, free_memory, memory_left

GB = 10**9


class Host:
    """A machine's control groups, made by hand, as the process that `self.process` describes sees them."""

    def __init__(self, folder: Path) -> None:
        self.process, self.mounts = folder / "self", folder / "cgroup"
        for path in (self.process, self.mounts):
            path.mkdir()

    def mount(self, kind: str, controllers: str, root: str = "/") -> Path:
        """Mounts a hierarchy of v1, "cgroup", or of v2, "cgroup2", and gives its folder."""
        point = self.mounts / (controllers or "unified")
        point.mkdir()
        options = f"rw,{controllers}" if controllers else "rw"
        with (self.process / "mountinfo").open("a") as file:
            file.write(f"30 23 0:26 {root} {point} ro,nosuid shared:9 - {kind} cgroup {options}\n")
        return point

    def belong(self, *lines: str) -> None:
        (self.process / "cgroup").write_text("".join(f"{line}\n" for line in lines))


@pytest.fixture
def host(tmp_path: Path) -> Host:
    made = Host(tmp_path)
    (made.process / "mountinfo").write_text("22 1 0:21 / /proc rw,relatime - proc proc rw\n")
    return made


def limit_v2(group: Path, most: int | str, used: int = 0, **stat: int) -> None:
    group.mkdir(parents=True, exist_ok=True)
    (group / "memory.max").write_text(f"{most}\n")
    (group / "memory.current").write_text(f"{used}\n")
    (group / "memory.stat").write_text("".join(f"{name} {value}\n" for name, value in stat.items()))


def limit_v1(group: Path, most: int, used: int = 0, **stat: int) -> None:
    group.mkdir(parents=True, exist_ok=True)
    (group / "memory.limit_in_bytes").write_text(f"{most}\n")
    (group / "memory.usage_in_bytes").write_text(f"{used}\n")
    (group / "memory.stat").write_text("".join(f"{name} {value}\n" for name, value in stat.items()))


# memory


def test_without_control_groups_there_is_no_limit(tmp_path: Path) -> None:
    assert memory_left(tmp_path) == UNLIMITED
    assert cpu_share(tmp_path) == float("inf")


def test_this_machine_can_be_read() -> None:
    assert 0 < memory_left() <= UNLIMITED
    assert 1 <= cpu.available_cores() <= (os.cpu_count() or 1)


def test_the_page_cache_of_a_container_is_free_memory(host: Host) -> None:
    host.belong("0::/")
    stat = {"anon": 2 * GB, "shmem": 1 * GB, "inactive_anon": 3 * GB, "inactive_file": 4 * GB, "active_file": 2 * GB}
    limit_v2(host.mount("cgroup2", ""), 10 * GB, 9 * GB + 5, slab_reclaimable=5, **stat)
    assert memory_left(host.process) == 7 * GB


def test_the_page_cache_of_v1_counts_that_of_the_groups_below(host: Host) -> None:
    host.belong("4:memory:/")
    point = host.mount("cgroup", "memory")
    limit_v1(point, 10 * GB, 9 * GB, inactive_file=1, active_file=1, total_inactive_file=4 * GB, total_active_file=2 * GB)
    assert memory_left(host.process) == 7 * GB


@pytest.mark.parametrize(("kind", "controllers", "line"), [("cgroup2", "", "0::/a/b/c"), ("cgroup", "memory", "4:memory:/a/b/c")])
def test_a_limit_of_a_group_above_counts(kind: str, controllers: str, line: str, host: Host) -> None:
    host.belong("1:name=systemd:/a", line)
    point, limit = host.mount(kind, controllers), limit_v2 if kind == "cgroup2" else limit_v1
    limit(point / "a/b/c", 9 * GB, 1 * GB)
    limit(point / "a/b", 6 * GB, 2 * GB)
    limit(point / "a", 8 * GB, 3 * GB)
    limit(point / "a/elsewhere", 1)
    assert memory_left(host.process) == 4 * GB


@pytest.mark.parametrize(
    ("line", "root"), [("0::/", "/"), ("0::/docker/abc", "/docker/abc"), ("0::/../host", "/"), ("0::/docker/abc", "/")]
)
def test_a_container_that_sees_its_own_group_only_is_read(line: str, root: str, host: Host) -> None:
    host.belong(line)
    limit_v2(host.mount("cgroup2", "", root), 3 * GB, 1 * GB)
    assert memory_left(host.process) == 2 * GB


def test_the_memory_of_v1_is_read_next_to_an_empty_v2(host: Host) -> None:
    host.belong("4:memory:/mine", "1:cpu,cpuacct:/", "0::/")
    limit_v1(host.mount("cgroup", "memory") / "mine", 3 * GB, 1 * GB)
    host.mount("cgroup2", "")
    host.mount("cgroup", "cpu,cpuacct")
    assert memory_left(host.process) == 2 * GB


def test_max_is_no_limit_and_usage_above_the_limit_leaves_nothing(host: Host) -> None:
    host.belong("4:memory:/", "0::/")
    limit_v2(host.mount("cgroup2", ""), "max", 5 * GB)
    point = host.mount("cgroup", "memory")
    limit_v1(point, (1 << 63) - 4096, 5 * GB)
    assert memory_left(host.process) == UNLIMITED
    limit_v1(point, 4 * GB, 5 * GB)
    assert memory_left(host.process) == 0
    limit_v1(point, 4 * GB, 3 * GB, total_inactive_file=5 * GB)  # the counters are read one after the other
    assert memory_left(host.process) == 4 * GB


@pytest.mark.parametrize(("free", "available"), [(5 * GB, 2 * GB), (1 * GB, 1 * GB)], ids=["the container's", "the machine's"])
def test_what_is_free_ends_at_the_container_or_the_machine(
    free: int, available: int, host: Host, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.belong("0::/")
    limit_v2(host.mount("cgroup2", ""), 3 * GB, 1 * GB)
    monkeypatch.setattr(cgroups, "memory_left", lambda: memory_left(host.process))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=free))
    monkeypatch.setattr(estimate.torch.cuda, "is_available", lambda: False)
    assert estimate.available_bytes() == free_memory() == available


# CPUs


def test_the_smallest_share_of_the_groups_counts(host: Host) -> None:
    host.belong("0::/a/b", "2:cpu,cpuacct:/c")
    point = host.mount("cgroup2", "")
    (point / "a/b").mkdir(parents=True)
    (point / "a/b/cpu.max").write_text("max 100000\n")
    assert cpu_share(host.process) == float("inf")
    (point / "a/cpu.max").write_text("250000 100000\n")
    assert cpu_share(host.process) == 2.5
    old = host.mount("cgroup", "cpu,cpuacct") / "c"
    old.mkdir()
    (old / "cpu.cfs_period_us").write_text("100000\n")
    (old / "cpu.cfs_quota_us").write_text("-1\n")
    assert cpu_share(host.process) == 2.5
    (old / "cpu.cfs_quota_us").write_text("150000\n")
    assert cpu_share(host.process) == 1.5


@pytest.mark.parametrize(("share", "expected"), [(float("inf"), 8), (9.0, 8), (2.5, 2), (1.6, 2), (0.2, 1)])
def test_cores_are_those_of_the_share_and_at_least_one(share: float, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(cpu, "cpu_share", lambda: share)
    assert cpu.available_cores() == expected


def test_a_file_that_cannot_be_read_is_not_a_limit(host: Host) -> None:
    host.belong("0::/")
    (host.mount("cgroup2", "") / "memory.max").mkdir()
    assert memory_left(host.process) == UNLIMITED
    assert cgroups.read(host.process) == ""
