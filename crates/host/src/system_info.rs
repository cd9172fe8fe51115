//! What a machine tells its peers of itself (worker-miner spec 6): field names and units are those of the wire.
//!
//! Integers have no fraction and floats are finite. What is not known is absent or null, as the spec types it.

use serde::Serialize;

/// The object `system_info` of a registration and a heartbeat.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct SystemInfo {
    /// Logical processors.
    pub cpu_count: u64,
    /// Share of processor time that was used since the last sample, in %.
    pub cpu_usage: f64,
    /// MiB.
    pub memory_total: u64,
    /// MiB.
    pub memory_available: u64,
    /// %.
    pub memory_usage: f64,
    /// Size of the root file system, GiB.
    pub disk_total: u64,
    /// GiB that unprivileged users may still fill.
    pub disk_free: u64,
    /// GPUs that drivers report: none yet.
    pub gpu_info: Vec<serde_json::Value>,
    /// The processor.
    pub cpu_info: CpuInfo,
    /// Memory in detail.
    pub memory_info: MemoryInfo,
    /// The kernel.
    pub system_info: KernelInfo,
    /// The board, as far as it is readable.
    pub motherboard_info: MotherboardInfo,
    /// Seconds since boot.
    pub uptime_seconds: Option<f64>,
}

/// The processor.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct CpuInfo {
    /// Hardware threads.
    pub logical_cores: u64,
    /// Cores, where the topology tells.
    pub physical_cores: Option<u64>,
    /// Hardware name of the kernel.
    pub architecture: String,
    /// Frequency over all processors.
    pub frequency_mhz: Frequency,
    /// As the processor names itself, where it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_name: Option<String>,
    /// The model name, or `Unknown`.
    pub brand: String,
    /// Number of the model.
    pub model: NumberOrUnknown,
    /// Number of the family.
    pub family: NumberOrUnknown,
}

/// Frequencies in MHz, 0 where the system does not tell.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Frequency {
    /// Now, mean over all processors.
    pub current: f64,
    /// Lowest that is configured, mean over all processors.
    pub min: f64,
    /// Highest that is configured, mean over all processors.
    pub max: f64,
}

/// A number, or the text `Unknown`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(untagged)]
pub enum NumberOrUnknown {
    /// The number.
    Number(u64),
    /// `"Unknown"`.
    #[default]
    #[serde(serialize_with = "unknown")]
    Unknown,
}

fn unknown<S: serde::Serializer>(serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str("Unknown")
}

/// Memory, in MiB and %.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct MemoryInfo {
    /// All of it.
    pub total: u64,
    /// What can be had without swapping.
    pub available: u64,
    /// The rest.
    pub used: u64,
    /// Share in use.
    pub percent: f64,
    /// Swap space.
    pub swap_total: u64,
    /// Swap space in use.
    pub swap_used: u64,
    /// Share of swap space in use.
    pub swap_percent: f64,
}

/// The kernel, as `uname` tells it.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct KernelInfo {
    /// `Linux`.
    pub system: String,
    /// Release.
    pub release: String,
    /// Version.
    pub version: String,
    /// Hardware name.
    pub machine: String,
}

/// The board. Serial numbers stay at home.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct MotherboardInfo {
    /// Who made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub manufacturer: Option<String>,
    /// What they call it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub product_name: Option<String>,
}
