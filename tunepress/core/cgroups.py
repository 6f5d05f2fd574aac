"""The memory and the CPU time that the machine and its control groups (Linux, v1 and v2) leave to this process.

psutil 7.2 does not read the groups, which are a container's limits. Any group above the process's own may have a limit, so all
of them are read.
"""

import ctypes
import gc
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath

PROCESS = Path("/proc/self")
UNLIMITED = 1 << 62  # v1 writes 2^63 rounded down to a page

# Files of a group: its limit, its usage, and the memory that the kernel reclaims before it kills a process. That is the page
# cache, active or not, and reclaimable slab, as in MemAvailable (si_mem_available in mm/show_mem.c); memory.stat counts shared
# memory with the anonymous pages (Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/memory.rst).
MEMORY = (
    ("memory.max", "memory.current", ("inactive_file", "active_file", "slab_reclaimable")),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", ("total_inactive_file", "total_active_file")),
)


def free_memory() -> int:
    """Bytes that this process can still allocate."""
    import psutil  # not at the top: an image that serves asks for cores alone, and has no psutil

    return min(int(psutil.virtual_memory().available), memory_left())


def release_memory() -> None:
    """Returns freed memory to the system, which C's heap keeps otherwise (malloc_trim(3), of glibc only)."""
    gc.collect()
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def memory_left(process: Path = PROCESS) -> int:
    """Bytes that a process can still allocate within the limits of its groups; UNLIMITED without a limit."""
    left = [UNLIMITED]
    for group in groups("memory", process):
        for limit_file, usage_file, reclaimable in MEMORY:
            limit = read(group / limit_file)
            if limit.isdigit() and int(limit) < UNLIMITED:
                stat = dict(line.split() for line in read(group / "memory.stat").splitlines())
                freeable = sum(int(stat.get(name, 0)) for name in reclaimable)
                left.append(max(0, int(limit) - max(0, int(read(group / usage_file)) - freeable)))
    return min(left)


def cpu_share(process: Path = PROCESS) -> float:
    """The number of CPUs whose time the groups of a process allow; infinite without a limit."""
    shares = [float("inf")]
    for group in groups("cpu", process):
        quota, _, period = read(group / "cpu.max").partition(" ")
        quota, period = quota or read(group / "cpu.cfs_quota_us"), period or read(group / "cpu.cfs_period_us")
        if quota.isdigit():  # without a limit v2 writes max and v1 writes -1
            shares.append(int(quota) / int(period))
    return min(shares)


def groups(controller: str, process: Path = PROCESS) -> Iterator[Path]:
    """The folders of all groups whose limits for a controller apply to a process: its own group and those that contain it."""
    own = dict(line.split(":", 2)[1:] for line in read(process / "cgroup").splitlines())
    paths = {name: path for names, path in own.items() for name in names.split(",")}
    for line in read(process / "mountinfo").splitlines():  # proc_pid_mountinfo(5)
        mount, _, filesystem = line.partition(" - ")
        kind, _, options = filesystem.split(" ", 2)
        root, mount_point = mount.split(" ")[3:5]
        name = "" if kind == "cgroup2" else controller  # v2 has one hierarchy for all controllers, without a name
        if name in paths and (kind == "cgroup2" or (kind == "cgroup" and controller in options.split(","))):
            yield from group_and_parents(Path(mount_point), PurePosixPath(root), PurePosixPath(paths[name]))


def group_and_parents(mount_point: Path, root: PurePosixPath, path: PurePosixPath) -> Iterator[Path]:
    """The folders of a group and of the groups above it that are visible in a mount.

    Args:
        mount_point: where the hierarchy is mounted.
        root: the group that is mounted there: "/", or in a container often the container's own group.
        path: of the process's group in the hierarchy.
    """
    inner = path.relative_to(root) if path.is_relative_to(root) else PurePosixPath()
    folder = mount_point / inner
    if ".." in inner.parts or not folder.is_dir():  # a group that is not visible in this container
        folder = mount_point
    yield from (parent for parent in (folder, *folder.parents) if parent.is_relative_to(mount_point))


def read(path: Path) -> str:
    """The content of a file; empty if it does not exist or cannot be read."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
