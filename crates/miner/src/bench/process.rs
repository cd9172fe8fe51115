//! What a process costs, read from `/proc` (proc_pid_status(5), proc_pid_stat(5)).

use std::{fs, io, time::Duration};

/// Ticks of processor time in a second, on every architecture that we build for (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;

/// A running process.
#[derive(Debug, Clone, Copy)]
pub(super) struct Process(pub(super) u32);

impl Process {
    /// This one.
    pub(super) fn own() -> Self {
        Self(std::process::id())
    }

    /// Its resident memory, in KiB.
    pub(super) fn rss_kb(self) -> io::Result<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let number = line.and_then(|line| line.split_whitespace().next()).and_then(|number| number.parse().ok());
        number.ok_or_else(|| io::Error::other("the process has no resident memory: it has ended"))
    }

    /// The processor time that it has used, over all its threads.
    pub(super) fn cpu_time(self) -> io::Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0))?;
        // The name of the program, in parentheses, may hold anything.
        let behind_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        let mut fields = behind_name.split(' ').skip(11).map(str::parse::<u64>);
        match (fields.next(), fields.next()) {
            (Some(Ok(user)), Some(Ok(system))) => {
                Ok(Duration::from_secs_f64((user + system) as f64 / TICKS_PER_SECOND))
            }
            _ => Err(io::Error::other("/proc/PID/stat is none of Linux")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_sees_its_own_memory_and_time_grow() {
        let process = Process::own();
        let (memory, time) = (process.rss_kb().expect("a size"), process.cpu_time().expect("a time"));
        let filled = vec![1_u8; 64 << 20];
        let mut sum = 0_u64;
        while process.cpu_time().expect("a time") <= time {
            sum = filled.iter().fold(sum, |sum, byte| sum.wrapping_add(u64::from(*byte)));
        }
        assert!(process.rss_kb().expect("a size") >= memory + (32 << 10), "{sum}");
    }
}
