//! Moving functions between drivers while the machine runs: `--now` (vm-and-gpu-host spec 4.5, point 8).

use std::io;

use serde::{Deserialize, Serialize};

use crate::gpu::Unit;
use crate::host_fs::HostFs;
use crate::pci::{DEVICES, VFIO_PCI};

/// A function that was moved to vfio-pci, and what it was before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    /// Where it is.
    pub address: String,
    /// The driver that had it.
    pub driver: Option<String>,
    /// The only driver that might take it.
    pub driver_override: Option<String>,
}

/// The functions that binding these units moves.
#[must_use]
pub fn to_move(units: &[Unit]) -> Vec<Moved> {
    let functions = units.iter().flat_map(Unit::functions).filter(|function| !function.is_bound());
    let moved = functions.map(|function| Moved {
        address: function.address.to_string(),
        driver: function.driver.clone(),
        driver_override: function.driver_override.clone(),
    });
    moved.collect()
}

/// Lets vfio-pci have a function.
///
/// # Errors
/// The kernel refused or did not answer, or another driver has the function afterwards.
pub fn bind(host: &HostFs, function: &Moved) -> io::Result<()> {
    give(host, &function.address, VFIO_PCI)?;
    match driver(host, &function.address) {
        Some(driver) if driver == VFIO_PCI => Ok(()),
        other => {
            let driver = other.unwrap_or_else(|| "no driver".to_owned());
            Err(io::Error::other(format!("{} has {driver} and not {VFIO_PCI}", function.address)))
        }
    }
}

/// Gives a function back: its override as it was, and whatever driver the kernel then finds for it.
///
/// # Errors
/// The kernel refused or did not answer.
pub fn release(host: &HostFs, function: &Moved) -> io::Result<()> {
    if driver(host, &function.address) == function.driver
        && override_of(host, &function.address) == function.driver_override
    {
        return Ok(());
    }
    // An empty line clears the override.
    give(host, &function.address, function.driver_override.as_deref().unwrap_or("\n"))
}

fn give(host: &HostFs, address: &str, only_driver: &str) -> io::Result<()> {
    let folder = format!("{DEVICES}/{address}");
    if !host.exists(format!("{folder}/vendor")) {
        return Err(io::Error::other(format!("{address} is gone from the bus")));
    }
    if driver(host, address).is_some() {
        host.set_attribute(&format!("{folder}/driver/unbind"), address)?;
    }
    host.set_attribute(&format!("{folder}/driver_override"), only_driver)?;
    host.set_attribute("/sys/bus/pci/drivers_probe", address)
}

fn driver(host: &HostFs, address: &str) -> Option<String> {
    host.link_name(format!("{DEVICES}/{address}/driver"))
}

fn override_of(host: &HostFs, address: &str) -> Option<String> {
    host.text(format!("{DEVICES}/{address}/driver_override")).filter(|name| name != "(null)")
}
