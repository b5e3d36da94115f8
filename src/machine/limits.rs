//! What this process may use of the machine: processor cores, by its affinity, and memory, by its cgroups.
//!
//! Files are read below a root, so that tests can stand in for the system.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// The physical cores that this process may run on: processors that share one count once. `None` where the system does not
/// say.
pub(super) fn physical_cores(root: &Path) -> Option<usize> {
    let allowed = super::field(&root.join("proc/self/status"), &["Cpus_allowed_list"])?;
    let core = |cpu: usize| {
        let file = format!("sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
        std::fs::read_to_string(root.join(file)).ok()
    };
    let cores: Option<HashSet<String>> = numbers(allowed.trim())?.into_iter().map(core).collect();
    cores.map(|cores| cores.len()).filter(|cores| *cores > 0)
}

/// The numbers of a list as the kernel writes them, for example "0-3,8".
fn numbers(list: &str) -> Option<Vec<usize>> {
    let mut numbers = Vec::new();
    for range in list.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        numbers.extend(first.parse::<usize>().ok()?..=last.parse().ok()?);
    }
    Some(numbers)
}

/// The least memory limit of the cgroups that this process is in, versions 1 and 2, in bytes; `None` if they set none.
pub(super) fn cgroup_memory(root: &Path) -> Option<u64> {
    let groups = std::fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let mounts = std::fs::read_to_string(root.join("proc/self/mountinfo")).ok()?;
    let of_group = |line: &str| {
        // "4:memory:/path" in version 1, "0::/path" in version 2.
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        let (kind, file) = match controllers {
            "" => ("cgroup2", "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => ("cgroup", "memory.limit_in_bytes"),
            _ => return None,
        };
        let folder = mounts.lines().find_map(|mount| folder_of(mount, kind, path))?;
        least_limit(root, &folder, file)
    };
    groups.lines().filter_map(of_group).min()
}

/// The mount point and folder of a cgroup, if it is in this mount of that kind.
fn folder_of(mount: &str, kind: &str, group: &str) -> Option<(PathBuf, PathBuf)> {
    // "32 31 0:29 /root /mount/point rw,relatime - cgroup cgroup rw,memory".
    let (before, after) = mount.split_once(" - ")?;
    let mut before = before.split(' ').skip(3);
    let (top, point) = (before.next()?, Path::new(before.next()?));
    let mut after = after.split(' ');
    let of_kind = after.next()? == kind && (kind == "cgroup2" || after.nth(1)?.split(',').any(|name| name == "memory"));
    if !of_kind {
        return None;
    }
    // In a container, the mount may show only the container's own group, whose path in the host's tree is not to be seen.
    let inside = Path::new(group).strip_prefix(top).unwrap_or(Path::new(""));
    let inside = inside.strip_prefix("/").unwrap_or(inside);
    Some((point.to_owned(), point.join(inside)))
}

/// The least limit of a group and of all groups that it is in.
fn least_limit(root: &Path, (point, folder): &(PathBuf, PathBuf), file: &str) -> Option<u64> {
    let up = folder.ancestors().take_while(|folder| folder.starts_with(point));
    let limit = |folder: &Path| {
        let below_root = folder.strip_prefix("/").unwrap_or(folder);
        // "max" in version 2 is no number.
        std::fs::read_to_string(root.join(below_root).join(file)).ok()?.trim().parse::<u64>().ok()
    };
    // Version 1 writes a limit that is not set as the largest number of whole pages.
    up.filter_map(limit).filter(|limit| *limit < u64::MAX >> 2).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A system with these files.
    fn system(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn processors_of_one_core_count_once_and_those_of_others_not_at_all() {
        let topology = |cpu: usize| format!("sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
        let paths: Vec<String> = (0..8).map(topology).collect();
        let siblings = ["0,4\n", "1,5\n", "2,6\n", "3,7\n", "0,4\n", "1,5\n", "2,6\n", "3,7\n"];
        for (allowed, cores) in
            [("0-7", Some(4)), ("0,4", Some(1)), ("0-1,5", Some(2)), ("6", Some(1)), ("8", None), ("", None)]
        {
            let status = format!("Name:\tx\nCpus_allowed_list:\t{allowed}\n");
            let files = paths.iter().map(String::as_str).zip(siblings);
            let root = system(&files.chain([("proc/self/status", &*status)]).collect::<Vec<_>>());
            assert_eq!(physical_cores(root.path()), cores, "{allowed}");
        }
        assert_eq!(physical_cores(system(&[]).path()), None);
    }

    #[test]
    fn the_least_memory_limit_of_all_groups_above_counts_in_both_versions() {
        let mounts = "30 23 0:27 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
                      35 30 0:31 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                      36 30 0:32 / /sys/fs/cgroup/memory rw,nosuid - cgroup cgroup rw,memory\n";
        let v1 = system(&[
            ("proc/self/cgroup", "5:cpu:/\n4:memory:/a/b\n"),
            ("proc/self/mountinfo", mounts),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "1000\n"),
            ("sys/fs/cgroup/memory/a/b/memory.limit_in_bytes", "2000\n"),
            ("sys/fs/cgroup/cpu/memory.limit_in_bytes", "1\n"),
        ]);
        assert_eq!(cgroup_memory(v1.path()), Some(1000));
        let unlimited = system(&[
            ("proc/self/cgroup", "4:memory:/\n"),
            ("proc/self/mountinfo", mounts),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ]);
        assert_eq!(cgroup_memory(unlimited.path()), None);
        let v2_mounts = "30 23 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n";
        let v2 = system(&[
            ("proc/self/cgroup", "0::/slice/app\n"),
            ("proc/self/mountinfo", v2_mounts),
            ("sys/fs/cgroup/slice/memory.max", "3000\n"),
            ("sys/fs/cgroup/slice/app/memory.max", "max\n"),
        ]);
        assert_eq!(cgroup_memory(v2.path()), Some(3000));
        // A container that sees its own group as the top, by the path that the host knows it by.
        let container = system(&[
            ("proc/self/cgroup", "4:memory:/docker/abc\n"),
            ("proc/self/mountinfo", "36 30 0:32 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "4000\n"),
        ]);
        assert_eq!(cgroup_memory(container.path()), Some(4000));
        assert_eq!(cgroup_memory(system(&[]).path()), None);
    }
}
