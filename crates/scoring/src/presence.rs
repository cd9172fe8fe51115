//! From heartbeats to availability: five-minute buckets of the window, counted.
//!
//! A heartbeat sets one bit of a [`DayBits`]. A [`Window`] cuts days to the time that counts; being present with a set
//! of GPUs is then an OR over reporters, an AND over GPUs, and a population count (validator spec 5.3).

use serde::{Deserialize, Serialize};

/// Length of a bucket, in milliseconds.
pub const BUCKET_MS: i64 = 300_000;
/// Buckets of a UTC day.
pub const BUCKETS_PER_DAY: i64 = 288;
/// Below this the address factor is zero: four changes and more.
const LEAST_ADDRESS_FACTOR: f64 = 0.1;

/// One five-minute bucket of UTC time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bucket(i64);

impl Bucket {
    /// The bucket that holds an instant (unix milliseconds UTC).
    #[must_use]
    pub fn at(unix_ms: i64) -> Self {
        Self(unix_ms.div_euclid(BUCKET_MS))
    }

    /// Days since 1970-01-01 UTC.
    #[must_use]
    pub fn day(self) -> i64 {
        self.0.div_euclid(BUCKETS_PER_DAY)
    }

    /// Byte and bit of this bucket within its day.
    fn position(self) -> (usize, u8) {
        let index = self.0.rem_euclid(BUCKETS_PER_DAY) as usize;
        (index / 8, 1 << (index % 8))
    }
}

/// The buckets of one UTC day: bucket `i` is bit `i % 8`, least significant first, of byte `i / 8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DayBits([u8; Self::BYTES]);

impl DayBits {
    /// Size as stored.
    pub const BYTES: usize = 36;
    /// Never seen.
    pub const EMPTY: Self = Self([0; Self::BYTES]);
    const FULL: Self = Self([0xff; Self::BYTES]);

    /// Reads the stored form.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        Self(bytes)
    }

    /// The stored form.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }

    /// Marks a bucket of this day as seen.
    pub fn insert(&mut self, bucket: Bucket) {
        let (byte, bit) = bucket.position();
        self.0[byte] |= bit;
    }

    /// Whether a bucket of this day is marked.
    #[must_use]
    pub fn contains(&self, bucket: Bucket) -> bool {
        let (byte, bit) = bucket.position();
        self.0[byte] & bit != 0
    }

    /// Buckets in either.
    #[must_use]
    pub fn union(mut self, other: Self) -> Self {
        self.0.iter_mut().zip(other.0).for_each(|(mine, theirs)| *mine |= theirs);
        self
    }

    /// Buckets in both.
    #[must_use]
    pub fn intersection(mut self, other: Self) -> Self {
        self.0.iter_mut().zip(other.0).for_each(|(mine, theirs)| *mine &= theirs);
        self
    }

    /// How many buckets are marked.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.0.iter().map(|byte| byte.count_ones()).sum()
    }

    /// The buckets of `day` from `first` to `last`, both included.
    fn between(day: i64, first: Bucket, last: Bucket) -> Self {
        if first.day() < day && day < last.day() {
            return Self::FULL;
        }
        let start = day * BUCKETS_PER_DAY;
        let mut bits = Self::EMPTY;
        for bucket in (start.max(first.0)..(start + BUCKETS_PER_DAY).min(last.0 + 1)).map(Bucket) {
            bits.insert(bucket);
        }
        bits
    }
}

/// The time in which presence counts: from the bucket that holds its start to the one that holds its end.
#[derive(Clone, Debug)]
pub(crate) struct Window {
    first_day: i64,
    /// What of each day lies inside.
    inside: Vec<DayBits>,
    hours: u32,
}

impl Window {
    pub(crate) fn ending(now_ms: i64, hours: u32) -> Self {
        let last = Bucket::at(now_ms);
        let first = Bucket::at(now_ms - i64::from(hours) * 3_600_000);
        let inside = (first.day()..=last.day()).map(|day| DayBits::between(day, first, last)).collect();
        Self { first_day: first.day(), inside, hours }
    }

    /// How many buckets full presence has, if every bucket counts: twelve an hour.
    pub(crate) fn expected(&self) -> u32 {
        self.hours.saturating_mul(12)
    }

    pub(crate) fn never(&self) -> Buckets {
        Buckets(vec![DayBits::EMPTY; self.inside.len()])
    }

    fn always(&self) -> Buckets {
        Buckets(self.inside.clone())
    }

    /// Adds to `buckets` what lies inside the window.
    pub(crate) fn add(&self, buckets: &mut Buckets, day: i64, bits: DayBits) {
        let Ok(index) = usize::try_from(day - self.first_day) else { return };
        if let (Some(sum), Some(inside)) = (buckets.0.get_mut(index), self.inside.get(index)) {
            *sum = sum.union(bits.intersection(*inside));
        }
    }

    /// The buckets in every one of `sets`; all of the window when there is none.
    pub(crate) fn in_all(&self, sets: impl IntoIterator<Item = Buckets>) -> Buckets {
        sets.into_iter().fold(self.always(), |common, set| {
            Buckets(common.0.into_iter().zip(set.0).map(|(left, right)| left.intersection(right)).collect())
        })
    }
}

/// A set of buckets of one [`Window`], day by day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Buckets(Vec<DayBits>);

impl Buckets {
    pub(crate) fn extend(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(mine, theirs)| *mine = mine.union(*theirs));
    }

    pub(crate) fn count(&self) -> u32 {
        self.0.iter().map(DayBits::count).sum()
    }
}

/// How much of the window somebody was there, with every number that made it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Availability {
    /// Buckets present.
    pub present: u32,
    /// Buckets that make full presence.
    pub expected: u32,
    /// How often the public address changed.
    pub address_changes: u32,
    /// ½ for each change, zero from the fourth on.
    pub address_factor: f64,
    /// The product of both, 0 to 1.
    pub value: f64,
}

impl Availability {
    pub(crate) fn of(present: u32, expected: u32, address_changes: u32) -> Self {
        let expected = expected.max(1);
        let ratio = (f64::from(present) / f64::from(expected)).min(1.0);
        let factor = 0.5_f64.powf(f64::from(address_changes));
        let address_factor = if factor < LEAST_ADDRESS_FACTOR { 0.0 } else { factor };
        Self { present, expected, address_changes, address_factor, value: ratio * address_factor }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: i64 = 1_761_955_200_000;

    #[test]
    fn a_bit_stands_where_the_stored_form_says() {
        let mut bits = DayBits::EMPTY;
        bits.insert(Bucket::at(0));
        bits.insert(Bucket::at(9 * BUCKET_MS + 1));
        assert_eq!(&bits.as_bytes()[..2], &[0b0000_0001, 0b0000_0010]);
        assert_eq!(DayBits::from_bytes(*bits.as_bytes()), bits);
        assert!(bits.contains(Bucket::at(BUCKET_MS - 1)) && !bits.contains(Bucket::at(BUCKET_MS)));
        assert_eq!(Bucket::at(-1).day(), -1);
    }

    #[test]
    fn a_window_holds_the_buckets_of_both_its_ends_and_no_more() {
        let window = Window::ending(NOW_MS, 169);
        assert_eq!(window.expected(), 2028);
        assert_eq!(window.always().count(), 2029);
        let mut buckets = window.never();
        for day in -1..20_500 {
            window.add(&mut buckets, day, DayBits::FULL);
        }
        assert_eq!(buckets, window.always());
    }

    #[test]
    fn a_window_within_one_day_is_cut_at_both_ends() {
        assert_eq!(Window::ending(NOW_MS + 7_200_000, 1).always().count(), 13);
    }

    #[test]
    fn each_address_change_halves_and_the_fourth_takes_all() {
        let values: Vec<f64> = (0..6).map(|changes| Availability::of(2028, 2028, changes).value).collect();
        assert_eq!(values, [1.0, 0.5, 0.25, 0.125, 0.0, 0.0]);
    }

    #[test]
    fn nothing_expected_is_no_division_by_zero() {
        assert_eq!(Availability::of(0, 0, 0).value, 0.0);
    }
}
