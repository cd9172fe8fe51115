use serde_json::json;

use super::*;

const ED25519: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIKD7RTF7GdJQROVZjXfLbFywhCE+AUd8mG64cD6lYsve me@pc";
const RSA_2048: &str = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAABAQC75eZIYfD9eW8tRRr5rClwhm/6Pwfqock5vuOkKX9Y3hYAcJTtOoQgWkwazuQ9UaJxpFX3PVjaUrxL863uSAsJgJZ7++KEqf1/ffin/7Q4JeoljIMeumU4mQNPt+dQiQ7OYa+V09Xg9KoJAVv0QPgHZunXOuskZHzCyv44pGTw5NjeysuAxeErTQgW8ZhHAxcRR3WAhxpw4PsiVxSboa8wi4JKbt4/3UbdLRNAxu8IyRbo01oXsC39Npa+PEJb73N14WE0ebw1/+ND4mfZSjSQirShVx0Dhk2I199c76hcQHJNPi/6Ca07oAKgqOowdpARUdel1Xv3+dM0tG8UPiYh me@pc";
const RSA_1024: &str = "ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAgQDMuty6kq7Q0YWhqyZHfVuYWjo6wr51OvzFgxtBL0+cAgnQv5h8X2nLJJDl/NdWhwm/6mF4Lyq7lWHB5k1cpc7YXpbr9dXWUYjJI6LM4O+ih9IdhoGykMkc99JSaFuFM2cpjCnK3OkkOnogCTldIoZgclq2kv5xU6lI97orO2Ciaw== me@pc";
const DSA: &str = "ssh-dss AAAAB3NzaC1kc3MAAACBAOlhRUX5ySRPPcZd6X5UZ/BXtE0m6kWqeHnIkFqTBvL45+4jfsy9HCduGDrR3XYh+9jaeSr1tFh2QVAba7DNTwM+M9dGxlR8fpgw2TtvKfrF9dbb9No4nqy+vb94kkfULVGIh9nzw+eeFa44piv5eedeaUMKF+qbTV6U5x6Lz+3/AAAAFQDZFD8O7QtciPtcByWXttPkkAjI0wAAAIEA3BJsG3LpqVg/JVzt2lVQVpFDR69EWVnOafp1SNF9A9usH3GzJ/2h0YVK/oXBC4AtbEW4EixrSWoaZod0ZH5gTW0Pv7cIx4Hm18Ga2Do+us3DQR7AK0q6j/Vz/YsDVU6NMR6vT3Uv+bGdoEUMbkLvaj+pFDH17uiVvOooLD+OaqkAAACAK7ZhPEq0/w9tEi5rtqZDUTbU5NzxhVVUZYnFmzUhaGZum1AfjVU3Wfj/P7jhBzkB931qtxSvwK4W5wpkmJWn9zsKqxwzRPs6N8fua2PBBU15TMBBOpESHECfFmVHz0yyci/XCTuCmj+XpV6igmujHssi2hmWBNpxeFSE6iIZ8P4=";
const ECDSA: [&str; 3] = [
    "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBHyftFoFzIkvX5B7QS5oMVj50B7fExo4ZJxUQdIq4rj1zx615A2Ii+FE5U6pPgV0xeDyT/d3UPrt1DfTUp9LvIQ= me@pc",
    "ecdsa-sha2-nistp384 AAAAE2VjZHNhLXNoYTItbmlzdHAzODQAAAAIbmlzdHAzODQAAABhBF+YcOE1c0W6ENlb8k3be66vk9v+O8B687Ereh9uOSMUS62QwSrBFuKKnV4njnH1ih8kR5ccYPoikM5BTBslIZ7pVTFzD0BY1cFqRJwzilsuC5ZJ3HR8mapRoNFhnf1ftA== me@pc",
    "ecdsa-sha2-nistp521 AAAAE2VjZHNhLXNoYTItbmlzdHA1MjEAAAAIbmlzdHA1MjEAAACFBAEUTQtySBjtpPgXd6Hz6E/13wuzG8JrctAMoQ8T2+sf9uJs5ZCwJA1WWbBv3lHAZQLpnx+4o/4wjAdblN8MTJCxwwCRo/wHZSKhKz7aS3qESPsjhiYGVOxxoWM5uNlNIQERHo0sYAyFQMNXA2Q/Wtjpatne4lkziXvh4Yb8Mmv7g0LMnw== me@pc",
];

fn offer() -> Offer {
    Offer {
        worker_id: "09442c31e75402e3".to_owned(),
        image_dir: PathBuf::from("/var/lib/vm"),
        images: BTreeMap::from([("base_image_flat.qcow2".to_owned(), 20)]),
        memory_mib: 65_536,
        vcpus: 16,
        gpus: 2,
        disk_gib: 4096,
        allow_password: true,
    }
}

/// The specification's example.
fn parameters() -> Object {
    let Value::Object(parameters) = json!({
        "task_id": "t-42", "worker_id": "09442c31e75402e3", "vm_name": "", "image_name": "base_image_flat.qcow2",
        "cloud_init_dir": "/var/lib/vm", "memory_mb": 65536, "vcpus": 16, "gpu_count": 1, "disk_size": 200,
        "username": "tenant", "sshkey": ED25519,
    }) else {
        unreachable!()
    };
    parameters
}

/// The example with one field replaced.
fn with(field: &str, value: impl Into<Value>) -> Result<CreateRequest, Refusal> {
    let mut parameters = parameters();
    parameters.insert(field.to_owned(), value.into());
    CreateRequest::parse(&parameters, &offer())
}

fn without(field: &str) -> Result<CreateRequest, Refusal> {
    let mut parameters = parameters();
    parameters.remove(field);
    CreateRequest::parse(&parameters, &offer())
}

#[test]
fn the_specification_s_example_is_understood() {
    let request = CreateRequest::parse(&parameters(), &offer()).unwrap();
    assert_eq!(request.vm_name.as_str(), "vm_t-42");
    assert_eq!(request.vm_name.host_name(), "vm-t-42");
    assert_eq!((request.memory_mib, request.vcpus, request.gpu_count, request.disk_gib), (65_536, 16, 1, 200));
    assert_eq!((request.username.as_str(), request.password), ("tenant", None));
    assert_eq!(request.ssh_keys.iter().map(SshKey::as_str).collect::<Vec<_>>(), [ED25519]);
}

#[test]
fn what_every_request_has_is_required_and_unknown_fields_are_ignored() {
    for field in ["task_id", "worker_id", "image_name", "cloud_init_dir", "memory_mb", "vcpus"] {
        assert_eq!(without(field), Err(Refusal::Missing(field)));
        assert_eq!(with(field, Value::Null), Err(Refusal::Missing(field)));
    }
    assert!(with("colour", json!({"red": [1]})).is_ok());
}

#[test]
fn a_request_for_another_worker_is_refused() {
    assert_eq!(with("worker_id", "09442c31e75402e4"), Err(Refusal::OtherWorker));
}

#[test]
fn a_task_is_1_to_128_plain_characters() {
    assert!(with("task_id", "a.B_c:d-9").is_ok());
    assert!(with("task_id", "t".repeat(128)).is_ok());
    for bad in ["".to_owned(), "t".repeat(129), "a/b".to_owned()] {
        assert!(matches!(with("task_id", bad), Err(Refusal::Malformed("task_id", _))));
    }
}

#[test]
fn a_machine_without_a_name_is_named_by_its_task_within_the_rule() {
    let name = |task: &str| with("task_id", task).unwrap().vm_name;
    assert_eq!(name("lease:7").as_str(), "vm_lease-7");
    let cut = name(&"t".repeat(128));
    assert_eq!(VmName::parse("vm_name", cut.as_str()), Ok(cut));
}

#[test]
fn a_machine_s_name_starts_with_a_letter_or_digit_and_has_at_most_63() {
    assert_eq!(with("vm_name", "Rack_7.a-b").unwrap().vm_name.host_name(), "rack-7-a-b");
    assert!(with("vm_name", "v".repeat(63)).is_ok());
    for bad in ["v".repeat(64), "-v".to_owned(), ".v".to_owned(), "_v".to_owned(), "é".to_owned()] {
        assert!(matches!(with("vm_name", bad), Err(Refusal::Malformed("vm_name", _))));
    }
}

#[test]
fn an_image_is_a_plain_name_in_the_catalogue() {
    assert_eq!(with("image_name", "other.qcow2"), Err(Refusal::UnknownImage));
    for bad in ["", "../base_image_flat.qcow2", "/etc/shadow", ".hidden"] {
        assert!(matches!(with("image_name", bad), Err(Refusal::Malformed("image_name", _))));
    }
}

#[test]
fn the_folder_must_be_the_host_s_own() {
    assert!(with("cloud_init_dir", "/var/lib/vm/").is_ok());
    assert!(with("cloud_init_dir", "/var/lib/./vm").is_ok());
    for bad in ["", "/var/lib", "/var/lib/vm/..", "/etc/../var/lib/vm", "var/lib/vm", "/var/lib/vm\0"] {
        assert!(matches!(with("cloud_init_dir", bad), Err(Refusal::Malformed("cloud_init_dir", _))), "{bad}");
    }
}

#[test]
fn memory_is_even_and_between_512_mib_and_what_is_free() {
    assert!(with("memory_mb", 512).is_ok());
    for bad in [json!(510), json!(65_538), json!(-512), json!(0)] {
        assert!(matches!(with("memory_mb", bad), Err(Refusal::OutOfRange { field: "memory_mb", .. })));
    }
    assert_eq!(with("memory_mb", 513), Err(Refusal::Malformed("memory_mb", "a multiple of 2")));
}

#[test]
fn processors_are_between_one_and_what_is_free() {
    assert!(with("vcpus", 1).is_ok());
    for bad in [0, 17, -1] {
        assert_eq!(with("vcpus", bad), Err(Refusal::OutOfRange { field: "vcpus", least: 1, most: 16 }));
    }
}

#[test]
fn gpus_are_whole_and_at_most_what_is_free_and_none_by_default() {
    assert_eq!(without("gpu_count").unwrap().gpu_count, 0);
    assert_eq!(with("gpu_count", 2).unwrap().gpu_count, 2);
    assert_eq!(with("gpu_count", 3), Err(Refusal::OutOfRange { field: "gpu_count", least: 0, most: 2 }));
    for bad in [json!(true), json!(1.0), json!("1"), json!(["0000:c1:00.0"]), json!({"count": 1})] {
        assert_eq!(with("gpu_count", bad), Err(Refusal::Malformed("gpu_count", "a whole number")));
    }
}

#[test]
fn a_disk_holds_its_image_and_fits_the_host() {
    assert!(with("disk_size", 20).is_ok());
    assert!(with("disk_size", 4096).is_ok());
    for bad in [19, 4097, -1] {
        assert_eq!(with("disk_size", bad), Err(Refusal::OutOfRange { field: "disk_size", least: 20, most: 4096 }));
    }
    assert_eq!(without("disk_size"), Err(Refusal::OutOfRange { field: "disk_size", least: 20, most: 4096 }));
    let mut small = offer();
    small.images.insert("base_image_flat.qcow2".to_owned(), 2);
    let mut parameters = parameters();
    parameters.remove("disk_size");
    assert_eq!(CreateRequest::parse(&parameters, &small).unwrap().disk_gib, DEFAULT_DISK_GIB);
}

#[test]
fn a_size_beyond_every_machine_or_of_another_kind_is_refused() {
    for field in ["memory_mb", "vcpus", "gpu_count", "disk_size"] {
        for bad in [json!(u64::MAX), json!(1e300), json!(2.5), json!("64; reboot"), json!([4]), json!(false)] {
            assert_eq!(with(field, bad), Err(Refusal::Malformed(field, "a whole number")));
        }
        assert!(matches!(with(field, i64::MAX), Err(Refusal::OutOfRange { .. })));
    }
}

#[test]
fn a_full_host_gives_nothing() {
    let full = Offer { memory_mib: 0, vcpus: 0, ..offer() };
    let refusal = CreateRequest::parse(&parameters(), &full).unwrap_err();
    assert_eq!(refusal.to_string(), "memory_mb must be from 512 to 0");
}

#[test]
fn a_user_has_a_plain_small_name_and_is_root_by_default() {
    assert_eq!(without("username").unwrap().username.as_str(), "root");
    assert!(with("username", "_svc-1").is_ok());
    for bad in ["".to_owned(), "Root".to_owned(), "1st".to_owned(), "-x".to_owned(), "u".repeat(33)] {
        assert!(matches!(with("username", bad), Err(Refusal::Malformed("username", _))));
    }
}

#[test]
fn a_password_is_8_to_128_printable_characters_is_never_printed_and_can_be_ruled_out() {
    let request = with("password", "'$(id)\" #x").unwrap();
    assert!(!format!("{request:?}").contains("$(id)"));
    assert_eq!(request.password.unwrap().expose(), "'$(id)\" #x");
    for bad in ["short77".to_owned(), "p".repeat(129), "pass\nword".to_owned(), "pässword9".to_owned()] {
        assert!(matches!(with("password", bad), Err(Refusal::Malformed("password", _))));
    }
    let mut parameters = parameters();
    parameters.insert("password".to_owned(), json!("long enough"));
    let keys_only = Offer { allow_password: false, ..offer() };
    assert_eq!(CreateRequest::parse(&parameters, &keys_only), Err(Refusal::PasswordNotAllowed));
}

#[test]
fn a_machine_that_nobody_could_log_in_to_is_refused() {
    assert_eq!(without("sshkey"), Err(Refusal::NoLogin));
    assert_eq!(with("sshkey", ""), Err(Refusal::NoLogin));
}

#[test]
fn ed25519_ecdsa_and_long_rsa_keys_are_taken_and_others_are_not() {
    for key in [ED25519, RSA_2048, ECDSA[0], ECDSA[1], ECDSA[2]] {
        assert_eq!(SshKey::parse_lines(key).unwrap()[0].as_str(), key);
    }
    for key in [RSA_1024, DSA] {
        assert!(SshKey::parse_lines(key).is_err());
    }
}

#[test]
fn one_to_eight_keys_are_taken_one_a_line() {
    let keys = |count: usize| SshKey::parse_lines(&vec![ED25519; count].join("\r\n")).map(|keys| keys.len());
    assert_eq!((keys(1), keys(8)), (Ok(1), Ok(8)));
    assert!(keys(9).is_err());
    assert!(SshKey::parse_lines("\n \n").is_err());
}

#[test]
fn a_key_s_comment_is_reduced_to_printable_ascii() {
    let bare = ED25519.trim_end_matches(" me@pc");
    let written = |comment: &str| SshKey::parse_lines(&format!("{bare} {comment}")).unwrap()[0].0.clone();
    assert_eq!(written("mé@pc\u{1b}[2J\t"), format!("{bare} m@pc[2J"));
    assert_eq!(written(&"c".repeat(500)).len(), bare.len() + 1 + 128);
}

#[test]
fn a_key_with_options_or_a_second_line_in_it_is_refused() {
    for bad in [
        format!("command=\"reboot\" {ED25519}"),
        format!("{ED25519}\nno key at all"),
        ED25519.replace("ssh-ed25519", "ssh-rsa"),
        "ssh-ed25519 AAAA".to_owned(),
        "-----BEGIN OPENSSH PRIVATE KEY-----".to_owned(),
    ] {
        assert!(SshKey::parse_lines(&bad).is_err(), "{bad}");
    }
}

/// What an attacker on the gateway's side would send in place of a name.
fn hostile_texts() -> Vec<String> {
    let mut texts: Vec<String> = [
        "a'b",
        "a\"b",
        "a\nb",
        "a\r\nb",
        "a;reboot",
        "$(reboot)",
        "`reboot`",
        "a|b",
        "a&b",
        "a>b",
        "../x",
        "a/../b",
        "/etc/passwd",
        "a\0b",
        "a b",
        "<domain/>",
        "]]>",
        "&amp;",
        "${HOME}",
        "%s%n",
        "*",
        "~root",
        "-rf",
        "--help",
        "a\\b",
        "\u{202e}x",
        "ａ",
        "x: !!python/object",
        "#cloud-config",
        "\u{7f}",
        "a\tb",
        "https://evil.example/?a=b&c=d",
    ]
    .map(str::to_owned)
    .to_vec();
    texts.push("a".repeat(1024 * 1024));
    texts.push("\0".repeat(1024 * 1024));
    texts
}

#[test]
fn hostile_texts_are_refused_in_every_name_and_never_repeated() {
    for hostile in hostile_texts() {
        for field in ["task_id", "vm_name", "image_name", "cloud_init_dir", "username", "sshkey", "worker_id"] {
            let is_mere_label = field == "task_id" && hostile.starts_with('-');
            if is_mere_label {
                continue;
            }
            let refusal = with(field, hostile.clone()).expect_err(field);
            let said = refusal.to_string();
            assert!(said.contains(field) && said.len() < 200, "{said}");
            assert!(hostile.len() < 4 || !said.contains(&hostile), "{said}");
        }
    }
}

#[test]
fn a_task_that_looks_like_an_option_never_begins_a_name() {
    for task in ["-rf", "--help", ".", ".."] {
        let request = with("task_id", task).unwrap();
        assert_eq!(request.vm_name.as_str(), format!("vm_{task}"));
    }
}

#[test]
fn other_kinds_of_values_are_refused_in_every_text() {
    for field in ["task_id", "vm_name", "image_name", "cloud_init_dir", "username", "sshkey", "password", "worker_id"] {
        for bad in [json!(7), json!(true), json!(["a"]), json!({"a": "b"})] {
            assert_eq!(with(field, bad), Err(Refusal::Malformed(field, "a text")));
        }
    }
}
