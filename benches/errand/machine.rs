//! What we run on. On anything but Linux some of it stays unknown, and nothing is pinned.

use std::{
    fs::{self, File},
    io::Write,
    process::{Command, Stdio},
    time::Instant,
};

use serde_json::{Value, json};

/// What can be said about the machine, for whoever compares two reports.
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

/// The load averages of 1, 5 and 15 minutes: who else was there.
pub fn load_average() -> Vec<f64> {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).filter_map(|number| number.parse().ok()).collect()
}

/// How many cores the machine has, whatever this process may use.
pub fn cores() -> usize {
    let online = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let counted = online.lines().filter(|line| line.starts_with("processor")).count();
    if counted > 0 { counted } else { std::thread::available_parallelism().map_or(1, usize::from) }
}

/// Whether processes can be put on cores of their own.
pub fn has_taskset() -> bool {
    let there = Command::new("taskset").arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status();
    cores() > 1 && there.is_ok_and(|status| status.success())
}

/// Keeps this process off one core.
pub fn leave_core(core: usize) {
    if !has_taskset() {
        return;
    }
    let others = (0..cores()).filter(|one| *one != core).map(|one| one.to_string()).collect::<Vec<_>>().join(",");
    let pinned = Command::new("taskset").args(["-a", "-c", "-p", &others, &std::process::id().to_string()]).output();
    assert!(pinned.is_ok_and(|output| output.status.success()), "taskset does not put this process on cores {others}");
}

/// The CPU time that a process with all its threads has used so far, in microseconds.
pub fn cpu_time(process: u32) -> Option<f64> {
    let text = fs::read_to_string(format!("/proc/{process}/stat")).ok()?;
    // The name of the program stands in brackets and may hold anything. Then: state is the third field, utime the 14th.
    let fields = text.rsplit_once(')')?.1.split_whitespace().collect::<Vec<_>>();
    let ticks = fields.get(11)?.parse::<f64>().ok()? + fields.get(12)?.parse::<f64>().ok()?;
    // A tick is 1/100 s wherever Linux shows it to a program.
    Some(ticks * 10_000.0)
}

/// The CPU time that the living threads of a process have used so far, in microseconds, to the nanosecond. Zero where
/// Linux does not show it.
pub fn cpu_time_exact(process: u32) -> f64 {
    let threads = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let of_thread = |path: std::path::PathBuf| {
        let text = fs::read_to_string(path.join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<f64>().ok()
    };
    threads.filter_map(|thread| of_thread(thread.path())).sum::<f64>() / 1e3
}

/// The same for all processes of this name together.
pub fn cpu_time_of_all(name: &str) -> f64 {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let has_name = |id: &u32| fs::read_to_string(format!("/proc/{id}/comm")).is_ok_and(|comm| comm.trim_end() == name);
    processes
        .filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(has_name)
        .map(cpu_time_exact)
        .sum()
}

/// The CPU time that this thread has used so far, in microseconds.
pub fn thread_cpu_time() -> Option<f64> {
    let text = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    Some(text.split(' ').next()?.parse::<f64>().ok()? / 1e3)
}

/// What a durable write costs on this disk: 4 KiB, and wait until they are there. The median, in microseconds.
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
