//! The machine: description, core pinning and CPU times. Outside Linux, some values are unknown and
//! nothing is pinned.

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
    process::{Command, Stdio},
    time::Instant,
};

use serde_json::{Value, json};

/// Describes the machine, for comparing reports.
pub fn describe() -> Value {
    let cpus = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus
        .lines()
        .find_map(|line| line.strip_prefix("model name").map(|rest| rest.trim_start_matches([' ', '\t', ':'])));
    json!({
        "cpu": model.unwrap_or("unknown"),
        "cores": cores(),
        "os": std::env::consts::OS,
        "architecture": std::env::consts::ARCH,
        "pinned": has_taskset(),
    })
}

/// Returns the load averages of 1, 5 and 15 minutes, which show other load.
pub fn load_average() -> Vec<f64> {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).filter_map(|number| number.parse().ok()).collect()
}

/// Returns the number of cores of the machine, not only those that this process may use.
pub fn cores() -> usize {
    let online = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let counted = online.lines().filter(|line| line.starts_with("processor")).count();
    if counted > 0 { counted } else { std::thread::available_parallelism().map_or(1, usize::from) }
}

/// Returns whether processes can be pinned to cores.
pub fn has_taskset() -> bool {
    let there = Command::new("taskset").arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status();
    cores() > 1 && there.is_ok_and(|status| status.success())
}

/// Returns the command that runs a program on one core.
pub fn pinned(core: usize, program: &Path) -> Command {
    if !has_taskset() {
        return Command::new(program);
    }
    let mut command = Command::new("taskset");
    command.args(["-c", &core.to_string()]).arg(program);
    command
}

/// Returns the resident memory of a process in bytes. Zero if it is unknown.
pub fn resident_memory(process: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    let kibibytes = line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or_default();
    kibibytes * 1024
}

/// Moves this process off one core.
pub fn leave_core(core: usize) {
    if !has_taskset() {
        return;
    }
    let others = (0..cores()).filter(|one| *one != core).map(|one| one.to_string()).collect::<Vec<_>>().join(",");
    let pinned = Command::new("taskset").args(["-a", "-c", "-p", &others, &std::process::id().to_string()]).output();
    assert!(pinned.is_ok_and(|output| output.status.success()), "taskset cannot pin this process to cores {others}");
}

/// Returns the CPU time of a process with all its threads, in microseconds.
pub fn cpu_time(process: u32) -> Option<f64> {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The program name is in parentheses and may contain anything. State is the third field, utime
    // the 14th.
    let fields = text.rsplit_once(')')?.1.split_whitespace().collect::<Vec<_>>();
    let ticks = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
    // Linux reports ticks of 1/100 s to programs.
    Some(ticks * 10_000.0)
}

/// Returns the CPU time of the living threads of a process in microseconds, with a resolution of
/// nanoseconds. Zero if Linux does not report it.
pub fn cpu_time_exact(process: u32) -> f64 {
    let threads = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let of_thread = |path: std::path::PathBuf| {
        let text = fs::read_to_string(path.join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<f64>().ok()
    };
    threads.filter_map(|thread| of_thread(thread.path())).sum::<f64>() / 1e3
}

/// Returns the CPU time of all processes with this name.
pub fn cpu_time_of_all(name: &str) -> f64 {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let has_name = |id: &u32| fs::read_to_string(format!("/proc/{id}/comm")).is_ok_and(|comm| comm.trim_end() == name);
    processes
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(has_name)
        .map(cpu_time_exact)
        .sum()
}

/// Returns the CPU time of this thread in microseconds.
pub fn thread_cpu_time() -> Option<f64> {
    let text = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(text.split(' ').next()?.parse::<f64>().ok()? / 1e3)
}

/// Measures a durable write of 4 KiB to this disk. Returns the median in microseconds.
pub fn sync_us() -> f64 {
    let folder = tempfile::tempdir().unwrap();
    let mut file = File::create(folder.path().join("sync")).unwrap();
    let mut times = Vec::new();
    for _ in 0..200 {
        let start = Instant::now();
        file.write_all(&[7; 4096]).unwrap();
        file.sync_data().unwrap();
        times.push(start.elapsed().as_secs_f64() * 1e6);
    }
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
