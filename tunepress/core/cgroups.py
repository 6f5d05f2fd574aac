"""Control groups (Linux, v1 and v2): the memory and the CPU time that a container leaves this process.

psutil 7.2 reads the machine's figures only. A limit may be set on any group above the process's own, so each of them is read.
"""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

PROCESS = Path("/proc/self")
UNLIMITED = 1 << 62  # v1 writes 2^63 rounded down to a page

# Files of a group: its limit, what is used of it, and what the kernel takes back before it kills a process. That is the page
# cache, active or not, and reclaimable slab, as in MemAvailable (si_mem_available in mm/show_mem.c); memory.stat counts shared
# memory with the anonymous pages (Documentation/admin-guide/cgroup-v2.rst, cgroup-v1/memory.rst).
MEMORY = (
    ("memory.max", "memory.current", ("inactive_file", "active_file", "slab_reclaimable")),
    ("memory.limit_in_bytes", "memory.usage_in_bytes", ("total_inactive_file", "total_active_file")),
)


def memory_left(process: Path = PROCESS) -> int:
    """Bytes that the groups of a process still allow, UNLIMITED where there is no limit."""
    left = [UNLIMITED]
    for group in groups("memory", process):
        for limit, used, reclaimable in MEMORY:
            most = read(group / limit)
            if most.isdigit() and int(most) < UNLIMITED:
                counts = dict(line.split() for line in read(group / "memory.stat").splitlines())
                freed = sum(int(counts.get(name, 0)) for name in reclaimable)
                left.append(max(0, int(most) - max(0, int(read(group / used)) - freed)))
    return min(left)


def cpu_share(process: Path = PROCESS) -> float:
    """CPUs' worth of time that the groups of a process allow, infinite where there is no limit."""
    shares = [float("inf")]
    for group in groups("cpu", process):
        quota, _, period = read(group / "cpu.max").partition(" ")
        quota, period = quota or read(group / "cpu.cfs_quota_us"), period or read(group / "cpu.cfs_period_us")
        if quota.isdigit():  # v2 writes max and v1 writes -1 for none
            shares.append(int(quota) / int(period))
    return min(shares)


def groups(controller: str, process: Path = PROCESS) -> Iterator[Path]:
    """The folders of a process's groups that may limit what a controller counts: its own group and all that contain it."""
    own = dict(line.split(":", 2)[1:] for line in read(process / "cgroup").splitlines())
    paths = {name: path for names, path in own.items() for name in names.split(",")}
    for line in read(process / "mountinfo").splitlines():  # proc_pid_mountinfo(5)
        mount, _, filesystem = line.partition(" - ")
        kind, _, options = filesystem.split(" ", 2)
        root, point = mount.split(" ")[3:5]
        name = "" if kind == "cgroup2" else controller  # v2 has one hierarchy for all controllers, without a name
        if name in paths and (kind == "cgroup2" or (kind == "cgroup" and controller in options.split(","))):
            yield from upwards(Path(point), PurePosixPath(root), PurePosixPath(paths[name]))


def upwards(point: Path, root: PurePosixPath, path: PurePosixPath) -> Iterator[Path]:
    """The folder of a group and those above it, as far as a mount shows them.

    Args:
        point: where the hierarchy is mounted.
        root: the group that is mounted there, "/" or, in a container, often the container's own.
        path: of the process's group in the hierarchy.
    """
    inner = path.relative_to(root) if path.is_relative_to(root) else PurePosixPath()
    folder = point / inner
    if ".." in inner.parts or not folder.is_dir():  # a group outside of what this container can see
        folder = point
    yield from (above for above in (folder, *folder.parents) if above.is_relative_to(point))


def read(path: Path) -> str:
    """The text of a file, empty where there is none or where it may not be read."""
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""
