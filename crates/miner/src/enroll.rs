//! The commands `workers enroll` and `workers revoke`, and the list of enrolled keys: they change the book in the state
//! directory, and a running miner takes it up within a second.

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use byteleap_daemon::admin;
use byteleap_protocol::{
    id::WorkerId,
    join::{JoinSecret, JoinToken, MAX_URL_BYTES},
    worker_key::WorkerKey,
};
use rand_core::OsRng;

use crate::{
    config::Settings,
    status::Status,
    workers::{
        enrolment::{Book, BookFile, BookFileError},
        tls::{self, Certificate, CertificateError},
    },
};

/// Longest life of a join token: a month.
const MAX_TOKEN_LIFE: Duration = Duration::from_secs(31 * 86_400);

/// Why a command changes nothing.
#[derive(Debug, thiserror::Error)]
pub enum EnrollError {
    /// The book cannot be changed so.
    #[error(transparent)]
    Book(#[from] BookFileError),
    /// The running miner would not see the change.
    #[error(
        "the miner that runs here keeps its book in {}, not in {}: add --set state_dir={} to this command", running.display(),
        meant.display(), running.display()
    )]
    OtherBook {
        /// Where the running miner looks.
        running: PathBuf,
        /// What this command was configured with.
        meant: PathBuf,
    },
    /// The workers' port has no certificate.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The secret would be sent in the clear.
    #[error("a join token is sent over wss:// only: set worker_management.tls.mode to on or required")]
    NoTls,
    /// Nobody knows how workers reach this host.
    #[error(
        "worker_management.host is {0}, which workers elsewhere cannot dial: name this host's address or name, as \
         --url wss://miner.example:{1}"
    )]
    NoUrl(String, u16),
    /// The URL is none that a worker dials.
    #[error("--url must be wss://<host>:<port>, at most {MAX_URL_BYTES} bytes")]
    WrongUrl,
}

/// Makes sure that a change would reach the miner that runs with this configuration, and says whether one runs: a service
/// has its state directory from systemd, which a command does not know of.
///
/// # Errors
/// [`EnrollError::OtherBook`].
pub async fn find_miner(settings: &Settings) -> Result<bool, EnrollError> {
    let Ok(status) = admin::get(settings.admin, "/status").await else { return Ok(false) };
    let Some(running) = serde_json::from_value::<Status>(status).ok().and_then(|status| status.state_dir) else {
        return Ok(false);
    };
    let place = |path: &Path| fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    if place(&running) == place(&settings.state_dir) {
        return Ok(true);
    }
    Err(EnrollError::OtherBook { running, meant: settings.state_dir.clone() })
}

/// Enrols a key, for one worker or for whichever first registers with it.
///
/// # Errors
/// [`EnrollError::Book`].
pub fn enroll(
    settings: &Settings,
    key: WorkerKey,
    worker_id: Option<&WorkerId>,
    now_ms: i64,
) -> Result<(), EnrollError> {
    Ok(book(settings).change(|book| book.enroll(key, worker_id, now_ms)).map(|_| ())?)
}

/// Takes a key back, by itself or by its worker; says what was revoked.
///
/// # Errors
/// [`EnrollError::Book`].
pub fn revoke(settings: &Settings, who: &str) -> Result<String, EnrollError> {
    let (entry, _) = book(settings).change(|book| book.revoke(who))?;
    let worker = entry.worker_id.map_or_else(|| "no worker yet".to_owned(), |worker_id| worker_id.to_string());
    Ok(format!("revoked {} of {worker}\n", entry.public_key))
}

/// Opens an invitation and makes its token. `url` is where workers dial; without it, where the miner listens.
///
/// The fingerprint of a self-signed certificate goes along. One from files may be renewed, so authorities vouch for it.
///
/// # Errors
/// See [`EnrollError`].
pub fn invite(settings: &Settings, url: Option<String>, life: Duration, now_ms: i64) -> Result<JoinToken, EnrollError> {
    if settings.tls_mode == tls::Mode::Off {
        return Err(EnrollError::NoTls);
    }
    let url = match url {
        Some(url) if url.starts_with("wss://") && url.len() <= MAX_URL_BYTES => url,
        Some(_) => return Err(EnrollError::WrongUrl),
        None => own_url(settings)?,
    };
    let certificate = Certificate::open(&settings.certificate)?;
    let fingerprint = matches!(settings.certificate, tls::Origin::SelfSigned(_)).then_some(certificate.fingerprint);
    let secret = JoinSecret::random(&mut OsRng);
    let life_ms = i64::try_from(life.min(MAX_TOKEN_LIFE).as_millis()).unwrap_or(i64::MAX);
    book(settings).change(|book| book.invite(secret.digest(), now_ms.saturating_add(life_ms), now_ms))?;
    Ok(JoinToken { url, fingerprint, secret })
}

fn own_url(settings: &Settings) -> Result<String, EnrollError> {
    let (host, port) = &settings.listen;
    let address = host.parse::<IpAddr>();
    if *port == 0 || address.is_ok_and(|address| address.is_unspecified()) {
        return Err(EnrollError::NoUrl(host.clone(), *port));
    }
    Ok(if host.contains(':') { format!("wss://[{host}]:{port}") } else { format!("wss://{host}:{port}") })
}

/// The enrolled keys, a line each.
///
/// # Errors
/// [`EnrollError::Book`].
pub fn enrolled(settings: &Settings) -> Result<String, EnrollError> {
    let book: Book = book(settings).read()?;
    let line = |entry: &crate::workers::enrolment::Enrolled| {
        let worker = entry.worker_id.as_ref().map_or("(not seen yet)", WorkerId::as_str);
        format!("{}  {worker}\n", entry.public_key)
    };
    Ok(book.enrolled().iter().map(line).collect())
}

fn book(settings: &Settings) -> BookFile {
    BookFile::in_directory(&settings.state_dir)
}

/// A duration as `90s`, `30m`, `1h` or `7d`.
///
/// # Errors
/// Something else, or longer than a month.
pub fn parse_life(text: &str) -> Result<Duration, String> {
    let wrong = || "a time as 90s, 30m, 1h or 7d, at most 31d".to_owned();
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).ok_or_else(wrong)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err(wrong()),
    };
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let life = Duration::from_secs(number.checked_mul(seconds).ok_or_else(wrong)?);
    if life.is_zero() || life > MAX_TOKEN_LIFE { Err(wrong()) } else { Ok(life) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_life_of_a_token_is_read_with_its_unit() {
        for (text, seconds) in [("90s", 90), ("30m", 1800), ("1h", 3600), ("7d", 604_800)] {
            assert_eq!(parse_life(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for wrong in ["", "h", "1", "0s", "32d", "-1h", "1y", "1é", "99999999999999999999d"] {
            assert!(parse_life(wrong).is_err(), "{wrong}");
        }
    }
}
