//! Keyfiles as the official wallet wrote them (chain spec 7).

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use base64::Engine as _;
use byteleap_chain::wallet::{Encryption, KeyfileError, PasswordError, Passwords, WalletError, keypair_from_uri};
use byteleap_chain::{Hotkey, Signature, Signer, Wallet};
use serde_json::{Value, json};

fn vectors() -> Value {
    serde_json::from_str(include_str!("../vectors/wallet.json")).unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

/// Loads `content` as the hotkey `default` of a wallet that has nothing else.
fn load(content: &[u8]) -> Result<Hotkey, KeyfileError> {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), "validator/hotkeys/default", content);
    match Wallet::load(root.path(), "validator", "default", &Passwords::default()) {
        Ok(wallet) => Ok(wallet.keypair.hotkey()),
        Err(WalletError::Keyfile { source, .. }) => Err(source),
        Err(other) => panic!("{other}"),
    }
}

fn write(root: &Path, file: &str, content: &[u8]) {
    let path = root.join(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

/// The recorded hotkey file with only the named fields.
fn only(fields: &[&str]) -> Vec<u8> {
    let file = vectors()["files"]["validator/hotkeys/default"]["json"].clone();
    let kept: serde_json::Map<_, _> = file
        .as_object()
        .unwrap()
        .iter()
        .filter(|(name, _)| fields.contains(&name.as_str()))
        .map(|(n, v)| (n.clone(), v.clone()))
        .collect();
    serde_json::to_vec(&kept).unwrap()
}

fn hotkey() -> Hotkey {
    text(&vectors()["hotkey"]["ss58_address"]).parse().unwrap()
}

#[test]
fn a_wallet_of_the_official_tools_loads() {
    let vectors = vectors();
    let root = tempfile::tempdir().unwrap();
    for file in ["validator/coldkeypub.txt", "validator/hotkeys/default", "validator/hotkeys/defaultpub.txt"] {
        write(root.path(), file, text(&vectors["files"][file]["text"]).as_bytes());
    }
    let wallet = Wallet::load(root.path(), "validator", "default", &Passwords::default()).unwrap();
    assert_eq!(wallet.keypair.hotkey(), hotkey());
    assert_eq!(wallet.coldkey.unwrap().to_string(), text(&vectors["coldkey"]["ss58_address"]));
}

#[test]
fn any_one_secret_is_enough() {
    for secret in ["secretPhrase", "secretSeed", "privateKey"] {
        assert_eq!(load(&only(&[secret, "ss58Address"])), Ok(hotkey()), "{secret}");
        assert_eq!(load(&only(&[secret])), Ok(hotkey()), "{secret} without an address");
    }
}

#[test]
fn a_corrupt_seed_yields_to_the_private_key() {
    let mut file: Value = serde_json::from_slice(&only(&["privateKey", "ss58Address"])).unwrap();
    for corrupt in ["0x1234".to_owned(), format!("0x{}", "22".repeat(32))] {
        file["secretSeed"] = json!(corrupt);
        assert_eq!(load(file.to_string().as_bytes()), Ok(hotkey()));
    }
}

#[test]
fn a_secret_of_another_address_is_refused() {
    let alice = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY";
    for secret in ["secretPhrase", "secretSeed", "privateKey"] {
        let mut file: Value = serde_json::from_slice(&only(&[secret])).unwrap();
        file["ss58Address"] = json!(alice);
        let refused = KeyfileError::Mismatch { stated: alice.parse().unwrap(), derived: hotkey() };
        assert_eq!(load(file.to_string().as_bytes()), Err(refused), "{secret}");
    }
}

#[test]
fn old_and_odd_files_are_understood() {
    let mut file: Value = serde_json::from_slice(&only(&["secretPhrase"])).unwrap();
    file[" ss58Address"] = json!(hotkey());
    file["secretSeed"] = Value::Null;
    file["cryptoType"] = json!("1");
    file["accountType"] = json!("sr25519");
    assert_eq!(load(file.to_string().as_bytes()), Ok(hotkey()));

    let vectors = vectors();
    assert_eq!(load(text(&vectors["hotkey"]["mnemonic"]).as_bytes()), Ok(hotkey()), "a bare phrase");
    assert_eq!(load(text(&vectors["hotkey"]["secret_seed"]).as_bytes()), Ok(hotkey()), "a bare seed");
}

#[test]
fn a_public_file_signs_nothing() {
    assert_eq!(load(&only(&["ss58Address", "publicKey", "accountId", "cryptoType"])), Err(KeyfileError::NoSecret));
}

#[test]
fn other_key_schemes_are_refused_by_name() {
    for other in [json!(0), json!("2"), json!(7)] {
        let mut file: Value = serde_json::from_slice(&only(&["secretPhrase", "ss58Address"])).unwrap();
        file["cryptoType"] = other;
        assert!(matches!(load(file.to_string().as_bytes()), Err(KeyfileError::CryptoType(_))), "{file}");
    }
}

/// The recorded plain text in each sealed form.
fn sealed(encryption: Encryption) -> Vec<u8> {
    let forms = &vectors()["encrypted"];
    match encryption {
        Encryption::Nacl => base64(&forms["nacl"]["base64"]),
        Encryption::Ansible => text(&forms["ansible"]["text"]).into(),
        Encryption::Fernet => text(&forms["legacy_fernet"]["text"]).into(),
    }
}

fn base64(value: &Value) -> Vec<u8> {
    base64::engine::general_purpose::STANDARD.decode(text(value)).unwrap()
}

/// Loads `content` with `password` in a file beside it.
fn unlock(content: &[u8], password: &str) -> Result<Wallet, WalletError> {
    let root = tempfile::tempdir().unwrap();
    write(root.path(), "validator/hotkeys/default", content);
    let file = root.path().join("password");
    write(root.path(), "password", password.as_bytes());
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    Wallet::load(root.path(), "validator", "default", &Passwords::of_process(Some(file)))
}

fn opens_with_its_password_and_no_other(encryption: Encryption) {
    let password = vectors()["password"].as_str().unwrap().to_owned();
    let wallet = unlock(&sealed(encryption), &format!("{password}\n")).unwrap();
    assert_eq!((wallet.keypair.hotkey(), wallet.encryption), (hotkey(), Some(encryption)));
    let refused = unlock(&sealed(encryption), "another").unwrap_err();
    let WalletError::Keyfile { source, .. } = &refused else { panic!("{refused}") };
    assert_eq!(*source, KeyfileError::WrongPassword(encryption));
    assert!(refused.to_string().contains("validator/hotkeys/default"), "{refused}");
}

#[test]
fn a_nacl_file_opens_with_its_password_and_no_other() {
    opens_with_its_password_and_no_other(Encryption::Nacl);
}

#[test]
fn an_ansible_file_opens_with_its_password_and_no_other() {
    opens_with_its_password_and_no_other(Encryption::Ansible);
}

#[test]
fn a_fernet_file_opens_with_its_password_and_no_other() {
    opens_with_its_password_and_no_other(Encryption::Fernet);
}

#[test]
fn a_file_that_the_official_wallet_sealed_opens() {
    let vectors = vectors();
    let content = base64(&vectors["files"]["validator/coldkey"]["base64"]);
    let wallet = unlock(&content, text(&vectors["password"])).unwrap();
    assert_eq!(wallet.keypair.hotkey().to_string(), text(&vectors["coldkey"]["ss58_address"]));
}

#[test]
fn a_changed_byte_is_told_from_a_frame_that_is_broken() {
    let password = vectors()["password"].as_str().unwrap().to_owned();
    let refusal = |content: &[u8]| match unlock(content, &password) {
        Err(WalletError::Keyfile { source, .. }) => source,
        other => panic!("{other:?}"),
    };
    let mut changed = sealed(Encryption::Ansible);
    let place = changed.len() - 20;
    changed[place] = if changed[place] == b'3' { b'6' } else { b'3' };
    assert_eq!(refusal(&changed), KeyfileError::WrongPassword(Encryption::Ansible));
    for encryption in [Encryption::Nacl, Encryption::Ansible, Encryption::Fernet] {
        assert_eq!(refusal(&sealed(encryption)[..30]), KeyfileError::Damaged(encryption));
    }
}

#[test]
fn a_sealed_file_without_a_password_says_where_one_may_come_from() {
    for encryption in [Encryption::Nacl, Encryption::Ansible, Encryption::Fernet] {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), "validator/hotkeys/default", &sealed(encryption));
        let refused = Wallet::load(root.path(), "validator", "default", &Passwords::default()).unwrap_err();
        let WalletError::Password { encryption: found, source: PasswordError::Nowhere { .. }, .. } = &refused else {
            panic!("{refused}")
        };
        assert_eq!(*found, encryption);
        assert!(refused.to_string().contains("wallet.password_file"), "{refused}");
    }
}

#[test]
fn the_recorded_plain_text_is_a_keyfile() {
    assert_eq!(load(text(&vectors()["encrypted_plaintext"]).as_bytes()), Ok(hotkey()));
}

#[test]
fn what_is_no_keyfile_is_refused() {
    for content in [b"".as_slice(), b"{", b"[]", b"nonsense", b"0x1234", b"\xff\xfe"] {
        assert_eq!(load(content), Err(KeyfileError::NotAKeyfile), "{content:?}");
    }
    assert_eq!(load(br#"{"encoded":"x","encoding":{}}"#), Err(KeyfileError::BrowserExtension));
}

#[test]
fn bad_addresses_are_refused() {
    for address in vectors()["ss58_invalid"].as_array().unwrap() {
        assert!(text(address).parse::<Hotkey>().is_err(), "{address}");
    }
}

#[test]
fn development_keys_are_those_of_every_substrate_chain() {
    for key in vectors()["dev_uris"].as_array().unwrap() {
        let keypair = keypair_from_uri(text(&key["uri"])).unwrap();
        assert_eq!(keypair.hotkey().to_string(), text(&key["ss58_address"]));
    }
}

#[test]
fn recorded_signatures_hold_or_fail_as_recorded() {
    for case in vectors()["signatures_by_hotkey"].as_array().unwrap() {
        let message = hex::decode(text(&case["message_hex"])).unwrap();
        let signature: Signature = text(&case["signature"]).parse().unwrap();
        assert_eq!(hotkey().verify(&message, &signature), case["valid"].as_bool().unwrap(), "{case}");
    }
}

#[test]
fn errors_and_debug_show_no_secret() {
    let vectors = vectors();
    let phrase = text(&vectors["hotkey"]["mnemonic"]);
    let mut file: Value = serde_json::from_slice(&only(&["secretPhrase"])).unwrap();
    file["ss58Address"] = json!("5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY");
    let error = load(file.to_string().as_bytes()).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("winner"), "{error:?}");

    let root = tempfile::tempdir().unwrap();
    write(root.path(), "validator/hotkeys/default", phrase.as_bytes());
    let wallet = Wallet::load(root.path(), "validator", "default", &Passwords::default()).unwrap();
    assert_eq!(
        format!("{wallet:?}"),
        format!("Wallet {{ keypair: Keypair({}), coldkey: None, encryption: None }}", hotkey())
    );
}
