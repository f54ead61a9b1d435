//! What this machine lets a run use.

use crate::pairs::jaccard::Held;
use crate::world::World;
use std::path::Path;

/// Memory that may still be taken on this node, in bytes: what the kernel calls available, or what
/// the control groups (Slurm's, a container's) leave, if that is less.
pub fn memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available = number_after(&text, "MemAvailable:").map(|kib| kib * 1024);
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    available.unwrap_or(u64::MAX).min(left_by_groups(Path::new("/sys/fs/cgroup"), &groups))
}

/// Memory that a rank may use: what was allowed, or its part of 80 % of what is free on its node.
pub fn memory_of_rank(world: &World, allowed: Option<u64>) -> u64 {
    allowed.unwrap_or_else(|| memory() / 10 * 8 / world.node_size() as u64)
}

/// What the memory controllers of these groups (`/proc/self/cgroup`) and of those around them leave, in
/// both versions of the interface (cgroups(7)). Cached files that nobody uses do not count as taken.
fn left_by_groups(root: &Path, groups: &str) -> u64 {
    let mut least = u64::MAX;
    for group in groups.lines() {
        let mut fields = group.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let (root, max, current, unused) = match controllers {
            "" => (root.to_owned(), "memory.max", "memory.current", "inactive_file"),
            _ if controllers.split(',').any(|c| c == "memory") => {
                (root.join("memory"), "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            }
            _ => continue,
        };
        let group = root.join(path.trim_start_matches('/'));
        for around in group.ancestors().take_while(|around| around.starts_with(&root)) {
            let read = |name: &str| std::fs::read_to_string(around.join(name)).ok();
            let number = |name: &str| read(name)?.trim().parse::<u64>().ok();
            // `max` is no number.
            let Some(max) = number(max) else { continue };
            let unused = number_after(&read("memory.stat").unwrap_or_default(), unused).unwrap_or(0);
            let taken = number(current).unwrap_or(0).saturating_sub(unused);
            least = least.min(max.saturating_sub(taken));
        }
    }
    least
}

/// The number that stands after this first word of a line, as the kernel tells such things.
fn number_after(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.split_whitespace().next() == Some(name))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Memory that this process holds, and the most that it held so far, in bytes.
pub fn held() -> Held {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let bytes = |name: &str| number_after(&status, name).map(|kib| kib * 1024);
    Held { now: bytes("VmRSS:").unwrap_or(0), peak: bytes("VmHWM:").unwrap_or(0) }
}

/// Free bytes on the file system that holds `path`, for this user.
pub fn disk(path: &Path) -> u64 {
    use std::os::unix::ffi::OsStrExt;
    // What is not there yet will be on the disk of what is.
    let is_there = |path: &&Path| path.as_os_str().is_empty() || path.exists();
    let path = path.ancestors().find(is_there).filter(|path| !path.as_os_str().is_empty());
    let path = path.unwrap_or(Path::new("."));
    let Ok(name) = std::ffi::CString::new(path.as_os_str().as_bytes()) else { return u64::MAX };
    let mut stat = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: `name` is a NUL-terminated string and `stat` a writable structure of the right type;
    // it is read only after the call said that it was filled.
    let stat = unsafe {
        if libc::statvfs(name.as_ptr(), stat.as_mut_ptr()) != 0 {
            return u64::MAX;
        }
        stat.assume_init()
    };
    stat.f_bavail.saturating_mul(stat.f_frsize)
}

/// Reads a size: bytes, or with a binary suffix (`512M`, `4G`, `1.5GiB`).
///
/// # Errors
/// Says what is wrong with the text.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: f64 = number.parse().map_err(|_| format!("`{text}` is no size; write 512M or 4G"))?;
    let unit = unit.trim().to_ascii_uppercase();
    let unit = unit.strip_suffix("IB").or_else(|| unit.strip_suffix('B')).unwrap_or(&unit);
    let factor = match unit {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        "T" => 40,
        _ => return Err(format!("`{text}`: the unit is K, M, G or T")),
    };
    Ok((number * f64::from(2u32).powi(factor)) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [("0", 0), ("4096", 4096), ("1K", 1024), ("1.5GiB", 3 << 29), ("2mb", 2 << 20)] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "G", "-1", "1X", "1..2"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn the_tightest_group_decides() {
        let root = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        assert_eq!(left_by_groups(root.path(), "0::/slurm/job_1/step_0\n"), u64::MAX);
        put("slurm/job_1/memory.max", "8000\n");
        put("slurm/job_1/memory.current", "5000\n");
        put("slurm/job_1/memory.stat", "anon 1000\ninactive_file 4000\n");
        put("slurm/job_1/step_0/memory.max", "max\n");
        assert_eq!(left_by_groups(root.path(), "0::/slurm/job_1/step_0\n"), 7000);
        put("memory/slurm/memory.limit_in_bytes", "900\n");
        put("memory/slurm/memory.usage_in_bytes", "300\n");
        let both = "12:cpuset:/slurm\n4:memory:/slurm/job_1\n0::/slurm/job_1\nnonsense\n";
        assert_eq!(left_by_groups(root.path(), both), 600);
        // A container sees its own group as the root.
        put("memory.max", "500\n");
        assert_eq!(left_by_groups(root.path(), "0::/\n"), 500);
    }

    #[test]
    fn this_machine_has_memory_and_disk() {
        assert!(memory() > 0);
        let held = held();
        assert!(held.now > 1 << 20 && held.peak >= held.now, "{held:?}");
        assert!(disk(Path::new("/")) > 0);
    }
}
