//! The running kernel: its version, and what it was told at start.

use crate::host_fs::HostFs;

/// Major and minor number of the release; zeros where it does not tell.
#[must_use]
pub fn version(host: &HostFs) -> (u32, u32) {
    host.text("/proc/sys/kernel/osrelease").map_or((0, 0), |release| numbers(&release))
}

/// The leading numbers of a release, as 6 and 8 of `6.8.0-45-generic`.
fn numbers(release: &str) -> (u32, u32) {
    let mut parts = release.split(|character: char| !character.is_ascii_digit());
    let mut next = || parts.next().and_then(|part| part.parse().ok()).unwrap_or_default();
    (next(), next())
}

/// The parameters that it was started with.
#[must_use]
pub fn parameters(host: &HostFs) -> Vec<String> {
    host.text("/proc/cmdline").unwrap_or_default().split_whitespace().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_leading_numbers_of_a_release_are_its_version() {
        assert_eq!(numbers("6.8.0-45-generic"), (6, 8));
        assert_eq!(numbers("6.12-arch1"), (6, 12));
        assert_eq!((numbers("rolling"), numbers("")), ((0, 0), (0, 0)));
    }
}
