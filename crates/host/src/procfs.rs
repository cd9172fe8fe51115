//! Reading the small texts that the kernel offers as files, and the numbers in them.

use std::collections::BTreeMap;

use crate::host_fs::HostFs;

/// The hardware name, as `uname -m` says it.
pub(crate) fn machine(host: &HostFs) -> String {
    host.text("/proc/sys/kernel/arch").unwrap_or_else(|| std::env::consts::ARCH.to_owned())
}

/// The processors under `/sys/devices/system/cpu`, as the names of their directories.
pub(crate) fn processors(host: &HostFs) -> Vec<String> {
    let mut names = host.list("/sys/devices/system/cpu");
    names.retain(|name| {
        let number = name.strip_prefix("cpu").unwrap_or_default();
        !number.is_empty() && number.bytes().all(|digit| digit.is_ascii_digit())
    });
    names
}

/// `/proc/meminfo`: KiB by name.
pub(crate) fn memory_kib(host: &HostFs) -> BTreeMap<String, u64> {
    let text = host.text("/proc/meminfo").unwrap_or_default();
    let line = |line: &str| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_owned(), value.split_whitespace().next()?.parse().ok()?))
    };
    text.lines().filter_map(line).collect()
}

/// The first line `name : value` of `/proc/cpuinfo`. The value ends at a second colon, as Python peers cut it.
pub(crate) fn cpu_field(cpuinfo: &str, name: &str) -> Option<String> {
    cpuinfo.lines().find_map(|line| {
        let mut parts = line.split(':');
        let found = parts.next()?.trim() == name;
        found.then(|| parts.next().unwrap_or_default().trim().to_owned())
    })
}

/// Time that the processors were busy and in all, in ticks since start, from the first line of `/proc/stat`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CpuTicks {
    pub(crate) busy: u64,
    pub(crate) total: u64,
}

impl CpuTicks {
    pub(crate) fn read(host: &HostFs) -> Option<Self> {
        Self::parse(host.text("/proc/stat")?.lines().next()?)
    }

    /// Guest time (fields 9 and 10) is contained in user and nice time and must not count twice.
    fn parse(line: &str) -> Option<Self> {
        let ticks: Vec<u64> =
            line.strip_prefix("cpu ")?.split_whitespace().map_while(|field| field.parse().ok()).collect();
        let total: u64 = ticks.iter().take(8).sum();
        let idle = ticks.get(3)? + ticks.get(4).unwrap_or(&0);
        Some(Self { busy: total - idle, total })
    }
}

/// Logical processors that are online: the lines `cpu0`, `cpu1`, … of `/proc/stat`.
pub(crate) fn online_processors(host: &HostFs) -> u64 {
    let numbered =
        |line: &&str| line.strip_prefix("cpu").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    host.text("/proc/stat").unwrap_or_default().lines().filter(numbered).count() as u64
}

/// The moment of boot, in seconds since the epoch, from `/proc/stat`.
pub(crate) fn boot_time_s(host: &HostFs) -> Option<u64> {
    host.text("/proc/stat")?.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guest_time_counts_once_and_waiting_is_idle() {
        let ticks = CpuTicks::parse("cpu  100 20 30 1000 50 5 5 10 40 8");
        assert_eq!(ticks, Some(CpuTicks { busy: 170, total: 1220 }));
        assert_eq!(CpuTicks::parse("cpu0 1 2 3 4"), None);
        assert_eq!(CpuTicks::parse("cpu  1 2"), None);
    }

    #[test]
    fn a_model_name_ends_at_its_second_colon() {
        let cpuinfo = "processor\t: 0\nmodel\t\t: 17\nmodel name\t: Chip: rev 2\n";
        assert_eq!(cpu_field(cpuinfo, "model name").as_deref(), Some("Chip"));
        assert_eq!(cpu_field(cpuinfo, "model").as_deref(), Some("17"));
        assert_eq!(cpu_field(cpuinfo, "cpu family"), None);
    }
}
