//! What the machine is, and what a process took of it, as Linux tells.

use std::fs::read_to_string;
use std::time::Duration;

use serde_json::{Value, json};

use crate::Trouble;

/// Clock ticks a second in `/proc`: Linux shows programs 100 on every architecture.
const TICKS: f64 = 100.0;

/// The machine in words, for the head of a table.
pub fn description() -> Value {
    let line = |file: &str, name: &str| {
        let text = read_to_string(file).unwrap_or_default();
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.split_once(':').map(|(_, v)| v.trim().to_owned()));
        value.unwrap_or_else(|| "unknown".to_owned())
    };
    let whole = |file: &str| read_to_string(file).unwrap_or_default().trim().to_owned();
    let memory = line("/proc/meminfo", "MemTotal").replace(" kB", "").parse::<f64>().unwrap_or(f64::NAN);
    json!({
        "cpu": line("/proc/cpuinfo", "model name"),
        "cores": cores(),
        "memory_gib": (memory / 1024.0 / 1024.0).round(),
        "kernel": whole("/proc/sys/kernel/osrelease"),
        "load_before": whole("/proc/loadavg").split(' ').next(),
        "profile": format!(
            "{}, lto {}, codegen-units {}",
            if cfg!(debug_assertions) { "unoptimised" } else { "release" },
            option_env!("CARGO_PROFILE_RELEASE_LTO").unwrap_or("fat"),
            option_env!("CARGO_PROFILE_RELEASE_CODEGEN_UNITS").unwrap_or("1"),
        ),
    })
}

/// How many cores there are.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// A number of KiB that `/proc/PID/status` gives, such as `VmHWM`, in MiB.
///
/// # Errors
/// When there is no such process.
pub fn memory_mib(pid: u32, name: &str) -> Result<f64, Trouble> {
    let text = read_to_string(format!("/proc/{pid}/status"))?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    let kib: f64 = value.ok_or("the kernel tells no memory")?.trim().trim_end_matches(" kB").parse()?;
    Ok(kib / 1024.0)
}

/// The fields of `/proc/PID/stat` after the name, which may hold anything.
fn stat(pid: u32) -> Option<Vec<u64>> {
    let text = read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(") ")?;
    // The state, a letter, counts as 0.
    Some(rest.split(' ').map(|field| field.parse().unwrap_or(0)).collect())
}

/// The process that started another.
pub fn parent(pid: u32) -> Option<u32> {
    stat(pid)?.get(1).and_then(|parent| u32::try_from(*parent).ok())
}

/// The processor time of a process and its threads.
pub fn cpu(pid: u32) -> Duration {
    let ticks = stat(pid).map_or(0, |fields| fields.iter().skip(11).take(2).sum());
    Duration::from_secs_f64(ticks as f64 / TICKS)
}

/// The processor time of the children of a process that still run.
pub fn cpu_of_children(of: u32) -> Duration {
    let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| parent(*pid) == Some(of)).map(cpu).sum()
}
