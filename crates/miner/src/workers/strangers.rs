//! Connections that have not registered yet: bounded for all peers together, and for each address far below that, so that
//! one who opens sockets and says nothing takes no room from workers at other addresses.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Strangers at once, all addresses together; more wait in the kernel's queue.
const MAX_STRANGERS: usize = 4096;

/// Strangers of one address at once: more than the workers of one miner that come back together behind one router.
const MAX_PER_ADDRESS: usize = 256;

/// Who is at the door, as a cheap handle.
#[derive(Debug, Clone)]
pub(super) struct Strangers {
    places: Arc<Semaphore>,
    by_address: Arc<Mutex<HashMap<IpAddr, usize>>>,
}

/// One stranger's place, given back on drop.
#[derive(Debug)]
pub(super) struct Stranger {
    address: IpAddr,
    strangers: Strangers,
    _place: OwnedSemaphorePermit,
}

impl Strangers {
    pub(super) fn new() -> Self {
        Self { places: Arc::new(Semaphore::new(MAX_STRANGERS)), by_address: Arc::default() }
    }

    /// Waits for a place. None only if the semaphore is closed, which nobody does.
    pub(super) async fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.places).acquire_owned().await.ok()
    }

    /// Gives the place to a peer; none if its address has enough of them.
    pub(super) fn admit(&self, address: IpAddr, place: OwnedSemaphorePermit) -> Option<Stranger> {
        let mut by_address = self.lock();
        let held = by_address.entry(address).or_default();
        if *held >= MAX_PER_ADDRESS {
            return None;
        }
        *held += 1;
        drop(by_address);
        Some(Stranger { address, strangers: self.clone(), _place: place })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.by_address.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let mut by_address = self.strangers.lock();
        if let Some(held) = by_address.get_mut(&self.address) {
            *held -= 1;
            if *held == 0 {
                by_address.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_address_fills_its_own_share_and_leaves_nothing_behind() {
        let strangers = Strangers::new();
        let (hostile, honest) = ([127, 0, 0, 2].into(), [127, 0, 0, 1].into());
        let mut held = Vec::new();
        for _ in 0..MAX_PER_ADDRESS {
            held.push(strangers.admit(hostile, strangers.place().await.expect("a place")).expect("its share"));
        }
        assert!(strangers.admit(hostile, strangers.place().await.expect("a place")).is_none());
        assert!(strangers.admit(honest, strangers.place().await.expect("a place")).is_some());
        drop(held);
        assert!(strangers.lock().is_empty());
        assert_eq!(strangers.places.available_permits(), MAX_STRANGERS);
    }
}
