//! From scores to the integers that go on the wire: scaled to the largest, rounded half to even, kept within the chain's
//! limits (chain spec 5.3). Pure arithmetic in f64, so that every validator emits the same numbers from the same scores.

use std::collections::BTreeSet;

/// The value of the largest weight; all others are in proportion to it.
const TOP: f64 = u16::MAX as f64;

/// Keeps the cut strictly below the limit, as the reference does.
const EPSILON: f64 = 1e-7;

/// A weight vector ready for the wire: parallel, no uid twice, no zeros, the largest value 65,535. Only [`Weights::emit`]
/// and [`Weights::emit_within`] build one, so whoever holds it need not check again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weights {
    uids: Vec<u16>,
    values: Vec<u16>,
    version_key: u64,
}

/// What the chain allows, at the block whose uids the weights name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Fewest entries (`MinAllowedWeights`); never more than `neurons` are demanded.
    pub min_allowed: u16,
    /// Largest share of one entry, of 65,535 (`MaxWeightsLimit`).
    pub max_share: u16,
    /// Neurons of the subnet: uids are below this.
    pub neurons: u16,
    /// Uid of the subnet's owner, the first to fill a vector that is too short.
    pub owner: Option<u16>,
    /// Uid of the sender, the last to fill it.
    pub own: Option<u16>,
}

/// Scores that cannot become weights.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum WeightsError {
    /// A weight is negative, infinite or not a number.
    #[error("weight {weight} of uid {uid} is not a finite number of at least zero")]
    NotAWeight {
        /// Whose weight.
        uid: u16,
        /// The offending value.
        weight: f64,
    },
    /// A uid stands in the vector twice.
    #[error("uid {0} stands in the weights twice")]
    DuplicateUid(u16),
}

impl Weights {
    /// Scales `(uid, weight)` pairs so that the largest becomes 65,535, rounds half to even and drops what became zero;
    /// order is kept. `None` when no weight is positive: there is nothing to send.
    ///
    /// # Errors
    /// [`WeightsError`] for a value that is no weight or a uid given twice.
    pub fn emit(pairs: &[(u16, f64)], version_key: u64) -> Result<Option<Self>, WeightsError> {
        check(pairs)?;
        let top = pairs.iter().map(|(_, weight)| *weight).fold(0.0, f64::max);
        if top == 0.0 {
            return Ok(None);
        }
        let (uids, values) =
            pairs.iter().map(|(uid, weight)| (*uid, scale(*weight, top))).filter(|(_, value)| *value > 0).unzip();
        Ok(Some(Self { uids, values, version_key }))
    }

    /// As [`Weights::emit`], after capping the largest share, and with a vector that is too short filled up: missing uids
    /// get the value 1, the owner's first, then the lowest numbers, the sender's last. Never the uniform vector of the
    /// reference, which would pay miners that nobody scored.
    ///
    /// # Errors
    /// As [`Weights::emit`].
    pub fn emit_within(pairs: &[(u16, f64)], version_key: u64, limits: &Limits) -> Result<Option<Self>, WeightsError> {
        check(pairs)?;
        let scored: Vec<_> = pairs.iter().copied().filter(|(_, weight)| *weight > 0.0).collect();
        let capped = cap_largest_share(&scored, f64::from(limits.max_share) / TOP);
        let mut weights = Self::emit(&capped, version_key)?;
        if let Some(weights) = &mut weights {
            weights.fill(limits);
        }
        Ok(weights)
    }

    /// The uids, parallel to [`Weights::values`].
    #[must_use]
    pub fn uids(&self) -> &[u16] {
        &self.uids
    }

    /// The values, 1 to 65,535.
    #[must_use]
    pub fn values(&self) -> &[u16] {
        &self.values
    }

    /// Version of the subnet's incentive code that the sender claims to run.
    #[must_use]
    pub fn version_key(&self) -> u64 {
        self.version_key
    }

    /// Uids with their values, in order.
    pub fn pairs(&self) -> impl Iterator<Item = (u16, u16)> + '_ {
        self.uids.iter().copied().zip(self.values.iter().copied())
    }

    /// Whether the largest value is more than `limit` of 65,535 of the sum. The full limit allows everything.
    pub(crate) fn largest_share_exceeds(&self, limit: u16) -> bool {
        let sum: u64 = self.values.iter().map(|value| u64::from(*value)).sum();
        let largest = self.values.iter().max().map_or(0, |value| u64::from(*value));
        largest * u64::from(u16::MAX) > u64::from(limit) * sum
    }

    fn fill(&mut self, limits: &Limits) {
        let wanted = usize::from(limits.min_allowed.min(limits.neurons));
        let mut present: BTreeSet<u16> = self.uids.iter().copied().collect();
        let others = (0..limits.neurons).filter(|uid| limits.own != Some(*uid));
        for uid in limits.owner.into_iter().chain(others).chain(limits.own) {
            if self.uids.len() >= wanted {
                return;
            }
            if present.insert(uid) {
                self.uids.push(uid);
                self.values.push(1);
            }
        }
    }
}

/// Lowers the largest weights until none holds more than `limit` (0 to 1) of the sum, and returns shares that add up to
/// one, in the given order. All shares are equal where the sum is zero or so few weights cannot keep the limit.
#[must_use]
pub fn cap_largest_share(pairs: &[(u16, f64)], limit: f64) -> Vec<(u16, f64)> {
    let count = pairs.len() as f64;
    let sum: f64 = pairs.iter().map(|(_, weight)| *weight).sum();
    if sum == 0.0 || count * limit <= 1.0 {
        return pairs.iter().map(|(uid, _)| (*uid, 1.0 / count)).collect();
    }
    let mut shares: Vec<f64> = pairs.iter().map(|(_, weight)| weight / sum).collect();
    shares.sort_by(f64::total_cmp);
    if shares.last().is_none_or(|largest| *largest <= limit) {
        return pairs.iter().map(|(uid, weight)| (*uid, weight / sum)).collect();
    }

    let cut = cut_off(&shares, limit) * sum;
    let capped: Vec<f64> = pairs.iter().map(|(_, weight)| weight.min(cut)).collect();
    let capped_sum: f64 = capped.iter().sum();
    pairs.iter().zip(capped).map(|((uid, _), weight)| (*uid, weight / capped_sum)).collect()
}

/// The share to cut at: with the smallest `kept` of the ascending shares left alone and all others set to the cut, the
/// cut is exactly `limit` of the new sum.
fn cut_off(ascending: &[f64], limit: f64) -> f64 {
    let count = ascending.len();
    let sums: Vec<f64> = ascending
        .iter()
        .scan(0.0, |sum, share| {
            *sum += share;
            Some(*sum)
        })
        .collect();
    let kept = (0..count)
        .filter(|&i| ascending[i] / ((count - i - 1) as f64 * ascending[i] + sums[i] + EPSILON) < limit)
        .count();
    let kept_sum = if kept == 0 { 0.0 } else { sums[kept - 1] };
    (limit * kept_sum - EPSILON) / (1.0 - limit * (count - kept) as f64)
}

fn check(pairs: &[(u16, f64)]) -> Result<(), WeightsError> {
    let mut seen = BTreeSet::new();
    for &(uid, weight) in pairs {
        if !(weight.is_finite() && weight >= 0.0) {
            return Err(WeightsError::NotAWeight { uid, weight });
        }
        if !seen.insert(uid) {
            return Err(WeightsError::DuplicateUid(uid));
        }
    }
    Ok(())
}

/// Within 0 to 65,535, since `0 <= weight <= top`.
fn scale(weight: f64, top: f64) -> u16 {
    (weight / top * TOP).round_ties_even() as u16
}
