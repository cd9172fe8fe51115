//! The GPUs of this machine as units: a card with its companions, in the groups that the IOMMU isolates
//! (vm-and-gpu-host spec 4.4).
//!
//! [`Inventory::read`] takes one look at the machine; [`holders`] finds the processes that have a card open; [`report`]
//! turns both into the texts of `list` and `verify`.

pub mod holders;
pub mod report;

use serde::Serialize;

use crate::host_fs::HostFs;
use crate::pci::{self, Function, NVIDIA, Role};

/// Where the kernel lists isolation groups.
pub const IOMMU_GROUPS: &str = "/sys/kernel/iommu_groups";

/// A GPU with the other functions of its card, which move together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unit {
    /// The GPU itself.
    pub gpu: Function,
    /// Sound, USB and connector of the same card.
    pub companions: Vec<Function>,
    /// Whether the card can be handed out alone.
    pub isolation: Isolation,
}

/// What shares the isolation groups of a unit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Isolation {
    /// Nothing but bridges.
    Alone,
    /// These, which are no part of the card.
    Shared(Vec<Function>),
    /// There are no groups: the IOMMU is off.
    Unknown,
}

impl Unit {
    /// The GPU and its companions.
    pub fn functions(&self) -> impl Iterator<Item = &Function> {
        std::iter::once(&self.gpu).chain(&self.companions)
    }

    /// Whether vfio-pci has all of it.
    #[must_use]
    pub fn is_bound(&self) -> bool {
        self.functions().all(Function::is_bound)
    }

    /// A switch between GPUs as a unit of its own, for boards that are handed out as a whole.
    #[must_use]
    pub fn of_switch(switch: &Function) -> Self {
        Self { gpu: switch.clone(), companions: Vec::new(), isolation: Isolation::Alone }
    }

    /// Lets the functions that share its groups move with it.
    pub fn take_strangers(&mut self) {
        if let Isolation::Shared(strangers) = std::mem::replace(&mut self.isolation, Isolation::Alone) {
            self.companions.extend(strangers);
        }
    }

    /// Functions that are no part of the card and share its groups.
    #[must_use]
    pub fn strangers(&self) -> &[Function] {
        match &self.isolation {
            Isolation::Shared(strangers) => strangers,
            Isolation::Alone | Isolation::Unknown => &[],
        }
    }
}

/// One look at the machine's PCI bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inventory {
    /// Every function, by address.
    pub functions: Vec<Function>,
    /// Isolation groups that the kernel shows.
    pub iommu_groups: usize,
}

impl Inventory {
    /// Reads sysfs.
    #[must_use]
    pub fn read(host: &HostFs) -> Self {
        Self { functions: pci::functions(host), iommu_groups: host.list(IOMMU_GROUPS).len() }
    }

    /// The units of all vendors, by address. Virtual functions are no units.
    #[must_use]
    pub fn units(&self) -> Vec<Unit> {
        let gpus = self.functions.iter().filter(|function| function.role == Role::Gpu && !function.is_virtual);
        gpus.map(|gpu| self.unit(gpu)).collect()
    }

    /// The units whose GPU is of one vendor.
    #[must_use]
    pub fn units_of(&self, vendor: u16) -> Vec<Unit> {
        let mut units = self.units();
        units.retain(|unit| unit.gpu.ids.vendor == vendor);
        units
    }

    /// NVIDIA's switches between GPUs.
    pub fn nvswitches(&self) -> impl Iterator<Item = &Function> {
        self.functions.iter().filter(|function| function.role == Role::NvSwitch && function.ids.vendor == NVIDIA)
    }

    fn unit(&self, gpu: &Function) -> Unit {
        let is_companion = |other: &&Function| {
            let belongs = other.address.is_same_slot(gpu.address) && other.address != gpu.address;
            belongs && !matches!(other.role, Role::Gpu | Role::Bridge)
        };
        let companions: Vec<_> = self.functions.iter().filter(is_companion).cloned().collect();
        let isolation = self.isolation(gpu, &companions);
        Unit { gpu: gpu.clone(), companions, isolation }
    }

    fn isolation(&self, gpu: &Function, companions: &[Function]) -> Isolation {
        let own = || std::iter::once(gpu).chain(companions);
        if own().any(|function| function.iommu_group.is_none()) {
            return Isolation::Unknown;
        }
        let is_stranger = |other: &&Function| {
            own().any(|function| function.iommu_group == other.iommu_group)
                && own().all(|function| function.address != other.address)
                && other.role != Role::Bridge
        };
        let strangers: Vec<_> = self.functions.iter().filter(is_stranger).cloned().collect();
        if strangers.is_empty() { Isolation::Alone } else { Isolation::Shared(strangers) }
    }
}
