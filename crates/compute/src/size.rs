//! How large a challenge is: the size that a validator draws around a base (worker-miner spec 4.9).

use byteleap_protocol::id::Seed;

use crate::mt19937::Mt19937;

const CPU_SIZE_MIN: u32 = 100;
const CPU_SIZE_MAX: u32 = 10_000;
const GPU_SIZE_MIN: u32 = 1;

/// The size of a CPU challenge: within `base` ± `variance` (a share, 0..=0.5) and within 100..=10,000; `base` where that range
/// is empty. The seed is the challenge's own; the draw does not shift its matrices.
pub fn cpu_size(seed: &Seed, base: u32, variance: f64) -> u32 {
    let (low, high) = spread(base, variance);
    draw(seed, base, low.max(CPU_SIZE_MIN), high.min(CPU_SIZE_MAX), variance)
}

/// The size of a GPU challenge: within `base` ± `variance` and at least 1; `base` where that range is empty.
pub fn gpu_size(seed: &Seed, base: u32, variance: f64) -> u32 {
    let (low, high) = spread(base, variance);
    draw(seed, base, low.max(GPU_SIZE_MIN), high, variance)
}

/// The bounds in binary64, in exactly this form, cut toward zero.
fn spread(base: u32, variance: f64) -> (u32, u32) {
    let base = f64::from(base);
    ((base * (1.0 - variance)) as u32, (base * (1.0 + variance)) as u32)
}

fn draw(seed: &Seed, base: u32, low: u32, high: u32, variance: f64) -> u32 {
    if variance == 0.0 || low >= high {
        return base;
    }
    low + Mt19937::new(seed.first_word()).up_to(high - low)
}
