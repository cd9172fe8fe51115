use std::os::unix::fs::PermissionsExt as _;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;

const NOW_MS: i64 = 1_770_000_000_000;
const NOW: &str = "2026-02-02T02:40:00+00:00";

/// Common name `09442c31e75402e3`, serial 5f0a91c2, valid from 2026-01-01T00:00:00Z to 2026-06-01T08:00:00Z.
const CERTIFICATE: &str = "\
-----BEGIN CERTIFICATE-----
MIIBIDCBxwIEXwqRwjAKBggqhkjOPQQDAjAbMRkwFwYDVQQDDBAwOTQ0MmMzMWU3
NTQwMmUzMB4XDTI2MDEwMTAwMDAwMFoXDTI2MDYwMTA4MDAwMFowGzEZMBcGA1UE
AwwQMDk0NDJjMzFlNzU0MDJlMzBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABNBi
Tk9ekJDcqyWCyouhsaHSMI8jDJcyoNJxz3g7Tp/5sEqB0z24g1E+UGUTan5SDZ6U
86VzywxPCvJJWFd3NaswCgYIKoZIzj0EAwIDSAAwRQIgESnNFodjSESCRPO7RVp5
THdK8OtvNHV2Dtc6HJFBC8QCIQDA3xJg5K892czwPgg0yRuQMc6OZU1jQfMjx+0t
ClKy5Q==
-----END CERTIFICATE-----
";

fn answer() -> EnrolmentAnswer {
    EnrolmentAnswer {
        device_cert_pem: CERTIFICATE.to_owned(),
        ca_bundle: "authorities".to_owned(),
        expires_at: "2026-06-01T08:00:00Z".to_owned(),
        ws_url: "wss://vmgw.example:8443/worker".to_owned(),
        cert_serial: None,
    }
}

fn credentials() -> Credentials {
    Credentials::enrolled(answer(), DeviceKey::new("first key".to_owned()), None, NOW_MS).unwrap()
}

/// A file in a folder of its own.
fn state_file() -> (TempDir, StateFile) {
    let folder = tempfile::tempdir().unwrap();
    let file = StateFile::at(folder.path().join(FILE_NAME));
    (folder, file)
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

#[test]
fn what_is_written_is_read_back_and_nothing_where_there_is_no_file() {
    let (_folder, file) = state_file();
    assert_eq!(file.read().unwrap(), None);
    file.write(&credentials()).unwrap();
    assert_eq!(file.read().unwrap(), Some(credentials()));
}

#[test]
fn only_its_owner_can_read_the_file_and_nothing_is_left_beside_it() {
    let (folder, file) = state_file();
    fs::write(file.beside("new"), "left by a crash").unwrap();
    file.write(&credentials()).unwrap();
    assert_eq!(fs::metadata(&file.path).unwrap().mode() & 0o7777, 0o600);
    let names: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, [FILE_NAME]);
}

#[test]
fn the_file_of_a_python_worker_is_read_and_its_unknown_fields_survive() {
    let (_folder, file) = state_file();
    let python = json!({
        "deviceCertPem": CERTIFICATE, "deviceKeyPem": "key", "caBundle": "ca", "expiresAt": "2026-06-01T08:00:00Z",
        "wsUrl": "wss://vmgw.example:8443/worker", "certSerial": "5f0a91c2",
        "enrolledAt": "2026-01-01T00:00:05.123456+00:00", "colour": {"red": 1},
    });
    fs::write(&file.path, python.to_string()).unwrap();
    set_mode(&file.path, 0o600);
    let read = file.read().unwrap().unwrap();
    let renewed =
        read.renewed(CERTIFICATE.to_owned(), "2026-12-01T08:00:00Z".to_owned(), DeviceKey::new("new".into()), NOW_MS);
    file.write(&renewed.unwrap()).unwrap();
    let written: Value = serde_json::from_slice(&fs::read(&file.path).unwrap()).unwrap();
    let mut expected = python;
    expected["deviceKeyPem"] = json!("new");
    expected["expiresAt"] = json!("2026-12-01T08:00:00Z");
    expected["lastRenewedAt"] = json!(NOW);
    assert_eq!(written, expected);
}

#[test]
fn a_file_open_to_others_is_refused_with_the_remedy() {
    let (_folder, file) = state_file();
    file.write(&credentials()).unwrap();
    for mode in [0o604, 0o640, 0o602, 0o620, 0o666] {
        set_mode(&file.path, mode);
        let error = file.read().unwrap_err();
        assert!(matches!(error, StateError::Exposed { mode: seen, .. } if seen == mode));
        assert!(error.to_string().contains("chmod 600"));
    }
}

#[test]
fn a_folder_that_everyone_can_write_is_refused_for_reading_and_writing() {
    let (folder, file) = state_file();
    file.write(&credentials()).unwrap();
    set_mode(folder.path(), 0o777);
    assert!(matches!(file.read(), Err(StateError::ExposedFolder { .. })));
    assert!(matches!(file.write(&credentials()), Err(StateError::ExposedFolder { .. })));
}

#[test]
fn a_file_without_a_required_field_is_unusable_and_its_key_is_not_told() {
    let (_folder, file) = state_file();
    for field in ["deviceCertPem", "deviceKeyPem", "caBundle", "expiresAt", "wsUrl"] {
        let mut object = serde_json::to_value(credentials()).unwrap();
        object.as_object_mut().unwrap().remove(field);
        fs::write(&file.path, object.to_string()).unwrap();
        set_mode(&file.path, 0o600);
        assert!(matches!(file.read(), Err(StateError::Unusable { .. })), "{field}");
    }
    fs::write(&file.path, r#"{"deviceKeyPem": ["first key"]}"#).unwrap();
    assert!(!file.read().unwrap_err().to_string().contains("first key"));
    assert!(!format!("{:?}", credentials()).contains("first key"));
}

#[test]
fn a_huge_file_is_not_read() {
    let (_folder, file) = state_file();
    let mut huge = create_private(&file.path).unwrap();
    huge.write_all(b"{").unwrap();
    huge.set_len(MAX_BYTES + 1).unwrap();
    assert!(matches!(file.read(), Err(StateError::Unusable { .. })));
}

#[test]
fn the_last_proven_credentials_stay_beside_the_new_until_these_are_proven() {
    let (_folder, file) = state_file();
    let proven = credentials();
    file.write(&proven).unwrap();
    for key in ["second", "third"] {
        file.write(&Credentials { device_key_pem: DeviceKey::new(key.to_owned()), ..proven.clone() }).unwrap();
    }
    file.restore_former().unwrap();
    assert_eq!(file.read().unwrap(), Some(proven));
    assert!(file.restore_former().is_err());

    file.write(&credentials()).unwrap();
    file.forget_former().unwrap();
    file.forget_former().unwrap();
    assert!(!file.former().exists());
}

#[test]
fn the_first_enrolment_s_date_outlives_renewals_and_later_enrolments() {
    let first = credentials();
    assert_eq!((first.enrolled_at.as_deref(), first.last_renewed_at.as_deref()), (Some(NOW), None));
    let key = DeviceKey::new("k".to_owned());
    let later = Credentials::enrolled(answer(), key.clone(), Some(&first), NOW_MS + 60_000).unwrap();
    assert_eq!(later.enrolled_at.as_deref(), Some(NOW));
    assert_eq!(later.last_renewed_at.as_deref(), Some("2026-02-02T02:41:00+00:00"));
    let renewed = later.renewed(CERTIFICATE.to_owned(), "2026-12-01T08:00:00Z".to_owned(), key, NOW_MS).unwrap();
    assert_eq!(renewed.enrolled_at.as_deref(), Some(NOW));
    assert_eq!((renewed.ca_bundle, renewed.ws_url), (later.ca_bundle, later.ws_url));
}

#[test]
fn the_serial_number_is_the_answer_s_or_else_the_certificate_s() {
    assert_eq!(credentials().cert_serial.as_deref(), Some("5f0a91c2"));
    let told = EnrolmentAnswer { cert_serial: Some("00ff".to_owned()), ..answer() };
    let key = DeviceKey::new("k".to_owned());
    assert_eq!(Credentials::enrolled(told, key, None, NOW_MS).unwrap().cert_serial.as_deref(), Some("00ff"));
}

#[test]
fn the_certificate_says_who_the_worker_is() {
    assert_eq!(credentials().common_name().as_deref(), Ok("09442c31e75402e3"));
    let chain = Credentials { device_cert_pem: CERTIFICATE.repeat(2), ..credentials() };
    assert_eq!(chain.common_name().as_deref(), Ok("09442c31e75402e3"));
    let end = "-----END CERTIFICATE-----";
    for text in ["", "no certificate", &CERTIFICATE[..200], end, &format!("{end}\n{CERTIFICATE}"), &format!("é{end}")]
    {
        let none = Credentials { device_cert_pem: text.to_owned(), ..credentials() };
        assert_eq!(none.common_name(), Err(CredentialsError::Certificate));
    }
}

#[test]
fn the_certificate_ends_at_the_earlier_of_its_own_date_and_the_gateway_s() {
    let ends = |expires_at: &str| {
        Credentials { expires_at: expires_at.to_owned(), ..credentials() }
            .validity()
            .map(|validity| validity.not_after_ms)
    };
    let own_end_ms = 1_780_300_800_000;
    assert_eq!(ends("2027-01-01T00:00:00Z"), Ok(own_end_ms));
    assert_eq!(ends("2026-06-01T07:59:59Z"), Ok(own_end_ms - 1000));
    assert_eq!(ends("soon"), Err(CredentialsError::ExpiresAt));
    assert_eq!(credentials().validity().unwrap().not_before_ms, 1_767_225_600_000);
}
