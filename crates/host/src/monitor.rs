//! Samples this machine: cheap reads of small kernel files, no child process, no network.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::host_fs::HostFs;
use crate::procfs::{self, CpuTicks};
use crate::system_info::{CpuInfo, Frequency, KernelInfo, MemoryInfo, MotherboardInfo, NumberOrUnknown, SystemInfo};

const KIB_PER_MIB: u64 = 1024;
const BYTES_PER_GIB: u64 = 1 << 30;

/// Remembers the last sample, since processor use is the use since then (at first: since boot).
#[derive(Debug)]
pub struct Monitor {
    host: HostFs,
    last_ticks: CpuTicks,
}

impl Monitor {
    /// A monitor of the machine whose files lie under `root`.
    pub fn new(root: &Path) -> Self {
        Self { host: HostFs::new(root), last_ticks: CpuTicks::default() }
    }

    /// Reads everything anew. Blocks for some milliseconds.
    pub fn sample(&mut self) -> SystemInfo {
        let cpu_info = self.cpu_info();
        let memory_info = self.memory_info();
        let (disk_total, disk_free) = self.disk_gib();
        SystemInfo {
            cpu_count: cpu_info.logical_cores,
            cpu_usage: self.cpu_usage(),
            memory_total: memory_info.total,
            memory_available: memory_info.available,
            memory_usage: memory_info.percent,
            disk_total,
            disk_free,
            gpu_info: Vec::new(),
            cpu_info,
            memory_info,
            system_info: self.kernel_info(),
            motherboard_info: MotherboardInfo {
                manufacturer: self.host.text("/sys/class/dmi/id/board_vendor"),
                product_name: self.host.text("/sys/class/dmi/id/board_name"),
            },
            uptime_seconds: self.uptime_seconds(),
        }
    }

    fn cpu_usage(&mut self) -> f64 {
        let Some(now) = CpuTicks::read(&self.host) else { return 0.0 };
        let last = std::mem::replace(&mut self.last_ticks, now);
        percent(now.busy.saturating_sub(last.busy), now.total.saturating_sub(last.total))
    }

    fn cpu_info(&self) -> CpuInfo {
        let cpuinfo = self.host.text("/proc/cpuinfo").unwrap_or_default();
        let processors = procfs::processors(&self.host);
        let number = |name| {
            let number = procfs::cpu_field(&cpuinfo, name).and_then(|value| value.parse().ok());
            number.map_or(NumberOrUnknown::Unknown, NumberOrUnknown::Number)
        };
        let model_name = procfs::cpu_field(&cpuinfo, "model name");
        CpuInfo {
            logical_cores: procfs::online_processors(&self.host),
            physical_cores: self.physical_cores(&processors),
            architecture: procfs::machine(&self.host),
            frequency_mhz: self.frequency(&processors, &cpuinfo),
            brand: model_name.clone().unwrap_or_else(|| "Unknown".to_owned()),
            model_name,
            model: number("model"),
            family: number("cpu family"),
        }
    }

    /// Processors of one core name the same set of siblings.
    fn physical_cores(&self, processors: &[String]) -> Option<u64> {
        let siblings = |processor: &String| {
            let file = |name| self.host.text(format!("/sys/devices/system/cpu/{processor}/topology/{name}"));
            file("core_cpus_list").or_else(|| file("thread_siblings_list"))
        };
        let cores: BTreeSet<String> = processors.iter().filter_map(siblings).collect();
        Some(cores.len() as u64).filter(|count| *count > 0)
    }

    fn frequency(&self, processors: &[String], cpuinfo: &str) -> Frequency {
        let mean_mhz = |file: &str| {
            let khz = |processor: &String| -> Option<f64> {
                self.host.text(format!("/sys/devices/system/cpu/{processor}/cpufreq/{file}"))?.parse().ok()
            };
            let all_khz: Vec<f64> = processors.iter().filter_map(khz).collect();
            (!all_khz.is_empty()).then(|| all_khz.iter().sum::<f64>() / all_khz.len() as f64 / 1000.0)
        };
        let from_cpuinfo = || procfs::cpu_field(cpuinfo, "cpu MHz")?.parse().ok();
        Frequency {
            current: mean_mhz("scaling_cur_freq").or_else(from_cpuinfo).unwrap_or(0.0),
            min: mean_mhz("scaling_min_freq").unwrap_or(0.0),
            max: mean_mhz("scaling_max_freq").unwrap_or(0.0),
        }
    }

    fn memory_info(&self) -> MemoryInfo {
        let kib = procfs::memory_kib(&self.host);
        let read = |name: &str| kib.get(name).copied().unwrap_or(0);
        let total = read("MemTotal");
        let estimate = || read("MemFree") + read("Buffers") + read("Cached");
        let available = Some(read("MemAvailable")).filter(|kib| *kib > 0).unwrap_or_else(estimate).min(total);
        let swap_total = read("SwapTotal");
        let swap_used = swap_total.saturating_sub(read("SwapFree"));
        MemoryInfo {
            total: total / KIB_PER_MIB,
            available: available / KIB_PER_MIB,
            used: (total - available) / KIB_PER_MIB,
            percent: percent(total - available, total),
            swap_total: swap_total / KIB_PER_MIB,
            swap_used: swap_used / KIB_PER_MIB,
            swap_percent: percent(swap_used, swap_total),
        }
    }

    /// Size of the root file system, and what users may still fill of it.
    fn disk_gib(&self) -> (u64, u64) {
        let Ok(disk) = self.host.space("/") else { return (0, 0) };
        (disk.total_bytes / BYTES_PER_GIB, disk.available_bytes / BYTES_PER_GIB)
    }

    fn kernel_info(&self) -> KernelInfo {
        let read = |name| self.host.text(format!("/proc/sys/kernel/{name}")).unwrap_or_default();
        KernelInfo {
            system: read("ostype"),
            release: read("osrelease"),
            version: read("version"),
            machine: procfs::machine(&self.host),
        }
    }

    fn uptime_seconds(&self) -> Option<f64> {
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs_f64();
        Some((now_s - procfs::boot_time_s(&self.host)? as f64).max(0.0))
    }
}

/// A share in %, one decimal; 0 of nothing.
fn percent(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { (part as f64 / whole as f64 * 1000.0).round() / 10.0 }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    #[test]
    fn memory_is_in_whole_mib_and_percent_with_one_decimal() {
        let root = machine(&[(
            "proc/meminfo",
            "MemTotal: 24684092 kB\nMemFree: 1000 kB\nMemAvailable: 24118232 kB\nSwapTotal: 2048 kB\nSwapFree: 1024 kB\n",
        )]);
        let info = Monitor::new(root.path()).sample();
        assert_eq!((info.memory_total, info.memory_available, info.memory_usage), (24105, 23552, 2.3));
        assert_eq!((info.memory_info.used, info.memory_info.swap_used, info.memory_info.swap_percent), (552, 1, 50.0));
    }

    #[test]
    fn memory_available_is_estimated_where_the_kernel_does_not_tell() {
        let root =
            machine(&[("proc/meminfo", "MemTotal: 4096 kB\nMemFree: 1024 kB\nBuffers: 512 kB\nCached: 512 kB\n")]);
        assert_eq!(Monitor::new(root.path()).sample().memory_available, 2);
    }

    #[test]
    fn processor_use_is_that_since_the_last_sample() {
        let root = machine(&[("proc/stat", "cpu  100 0 0 300 0 0 0 0 0 0\ncpu0 1\ncpu1 1\nbtime 1\n")]);
        let mut monitor = Monitor::new(root.path());
        let first = monitor.sample();
        assert_eq!((first.cpu_count, first.cpu_usage), (2, 25.0));
        fs::write(root.path().join("proc/stat"), "cpu  190 0 0 310 0 0 0 0 0 0\nbtime 1\n").unwrap();
        assert_eq!(monitor.sample().cpu_usage, 90.0);
    }

    #[test]
    fn cores_are_counted_by_their_siblings_and_frequencies_averaged() {
        let root = machine(&[
            ("sys/devices/system/cpu/cpu0/topology/core_cpus_list", "0-1"),
            ("sys/devices/system/cpu/cpu1/topology/core_cpus_list", "0-1"),
            ("sys/devices/system/cpu/cpu2/topology/thread_siblings_list", "2"),
            ("sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", "2000000"),
            ("sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq", "3000000"),
            ("sys/devices/system/cpu/cpufreq/ignored", "1"),
            ("proc/cpuinfo", "model name\t: Chip 9\nmodel\t: 17\ncpu MHz\t: 1.0\n"),
        ]);
        let cpu = Monitor::new(root.path()).sample().cpu_info;
        assert_eq!(cpu.physical_cores, Some(2));
        assert_eq!(cpu.frequency_mhz, Frequency { current: 2500.0, min: 0.0, max: 0.0 });
        assert_eq!(
            (cpu.brand.as_str(), cpu.model, cpu.family),
            ("Chip 9", NumberOrUnknown::Number(17), NumberOrUnknown::Unknown)
        );
    }

    #[test]
    fn a_machine_that_tells_nothing_still_has_the_typed_shape() {
        let root = tempfile::tempdir().unwrap();
        let info = serde_json::to_value(Monitor::new(root.path()).sample()).unwrap();
        for integer in ["cpu_count", "memory_total", "memory_available", "disk_total", "disk_free"] {
            assert!(info[integer].is_u64(), "{integer}");
        }
        assert_eq!(info["gpu_info"], serde_json::json!([]));
        assert_eq!(info["motherboard_info"], serde_json::json!({}));
        assert_eq!(info["cpu_info"]["family"], "Unknown");
        assert!(info["uptime_seconds"].is_null());
    }

    #[test]
    fn this_machine_has_processors_memory_and_a_disk() {
        let info = Monitor::new(Path::new("/")).sample();
        assert!(info.cpu_count > 0 && info.memory_total > 0 && info.disk_total > 0);
        assert!(info.uptime_seconds.is_some_and(|seconds| seconds > 0.0));
    }
}
