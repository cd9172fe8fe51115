//! The promises of the table of keys.

use std::net::{IpAddr, SocketAddr};

use proptest::prelude::*;

use super::*;

const KEYS: &[Key] = &[
    Key::integer("port", 1024, 65535, "port of the axon").default("9091"),
    Key::text("external_ip", "address to publish").parsed::<IpAddr>(),
    Key::text("wallet.name", "wallet that signs").required(),
    Key::boolean("gpu.enable", "use the GPUs").default("true"),
    Key::float("validation.threshold", 0.1, 1.0, "share of challenges to pass").default("0.80").live(),
    Key::integer("validation.cpu.matrix_size", 100, 10000, "rows and columns").default("2000"),
    Key::list("validation.models", "accepted GPUs").default("[H100 80GB, B200]"),
    Key::map("metagraph.whitelist", "validators that need no permit").default("{}"),
    Key::text("hub.token", "login at the hub").secret(),
    Key::text("http.listen", "admin endpoint").parsed::<SocketAddr>().default("127.0.0.1:9092"),
];

fn load(yaml: &str, environment: &[(&str, &str)], arguments: &[&str]) -> Result<Config, Error> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.yaml");
    std::fs::write(&file, yaml).unwrap();
    Config::load(
        KEYS,
        &Sources {
            file: Some(file),
            environment: environment.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect(),
            arguments: arguments.iter().map(|assignment| (*assignment).into()).collect(),
        },
    )
}

#[test]
fn defaults_hold_where_nothing_is_given() {
    let config = load("wallet: {name: validator}", &[], &[]).unwrap();
    assert_eq!(config.get::<u16>("port"), 9091);
    assert_eq!(config.parsed_optional::<IpAddr>("external_ip"), None);
    assert!(config.get::<bool>("gpu.enable"));
    assert_eq!(config.get::<f64>("validation.threshold"), 0.8);
    assert_eq!(config.get::<Vec<String>>("validation.models"), ["H100 80GB", "B200"]);
    assert_eq!(config.get::<BTreeMap<String, Option<String>>>("metagraph.whitelist"), BTreeMap::new());
    assert_eq!(config.parsed::<SocketAddr>("http.listen").port(), 9092);
    assert_eq!(config.source("port"), &Source::Default);
    assert!(config.warnings().is_empty());
}

#[test]
fn later_sources_win_and_are_remembered() {
    let yaml = "port: 2000\nwallet: {name: from-file}\nvalidation: {cpu: {matrix_size: 300}}";
    let environment = [("BYTELEAP_VALIDATION__CPU__MATRIX_SIZE", "400"), ("BYTELEAP_PORT", "3000")];
    let config = load(yaml, &environment, &["port=4000", "port=5000"]).unwrap();
    assert_eq!(config.get::<u16>("port"), 5000);
    assert_eq!(config.source("port"), &Source::Argument);
    assert_eq!(config.get::<u32>("validation.cpu.matrix_size"), 400);
    let variable = Source::Environment("BYTELEAP_VALIDATION__CPU__MATRIX_SIZE".into());
    assert_eq!(config.source("validation.cpu.matrix_size"), &variable);
    assert_eq!(config.get::<String>("wallet.name"), "from-file");
    assert!(matches!(config.source("wallet.name"), Source::File(_)));
}

#[test]
fn every_problem_comes_at_once_with_key_source_found_and_allowed() {
    let yaml = "port: 80\ngpu: {enable: perhaps}\nhttp: {listen: nowhere}\nvalidation: 3";
    let error = load(yaml, &[("BYTELEAP_VALIDATION__THRESHOLD", "2")], &["validation.cpu.matrix_size=1.5", "oops"])
        .unwrap_err();
    let text = error.to_string();
    let subjects: Vec<&str> = error.problems.iter().map(|problem| problem.subject.as_str()).collect();
    assert_eq!(
        subjects,
        [
            "port",
            "gpu.enable",
            "http.listen",
            "validation",
            "validation.threshold",
            "validation.cpu.matrix_size",
            "oops",
            "wallet.name"
        ]
    );
    assert!(text.contains("config.yaml): found 80, allowed: a whole number from 1024 to 65535"), "{text}");
    assert!(
        text.contains("environment BYTELEAP_VALIDATION__THRESHOLD): found 2, allowed: a number from 0.1 to 1"),
        "{text}"
    );
    assert!(text.contains("(--set): found 1.5, allowed: a whole number"), "{text}");
    assert!(text.contains("wallet.name: is required"), "{text}");
}

#[test]
fn unknown_keys_are_warnings_with_a_suggestion_but_errors_where_just_typed() {
    let config = load(
        "wallet: {name: v, nmae: w}\nmatrix_size: 5\ncolour: {red: 1}\nvaldation: {cpu: {}}",
        &[("BYTELEAP_PROT", "1")],
        &[],
    )
    .unwrap();
    let warnings: Vec<String> = config.warnings().iter().map(ToString::to_string).collect();
    assert_eq!(warnings.len(), 5, "{warnings:?}");
    assert!(warnings[0].contains("wallet.nmae") && warnings[0].contains("did you mean wallet.name?"), "{warnings:?}");
    assert!(warnings[1].contains("did you mean validation.cpu.matrix_size?"), "{warnings:?}");
    assert!(warnings[2].starts_with("colour") && !warnings[2].contains("did you mean"), "{warnings:?}");
    assert!(warnings[3].contains("did you mean validation?"), "{warnings:?}");
    assert!(warnings[4].contains("did you mean BYTELEAP_PORT?"), "{warnings:?}");
    let error = load("wallet: {name: v}", &[], &["prot=2000"]).unwrap_err();
    assert!(error.to_string().contains("did you mean port?"), "{error}");
}

#[test]
fn old_files_read_as_yaml_1_1() {
    let config =
        load("wallet: {name: 7}\nport: 010000\ngpu: {enable: off}\nvalidation: {threshold: 1}", &[], &[]).unwrap();
    assert_eq!(config.get::<u16>("port"), 4096);
    assert!(!config.get::<bool>("gpu.enable"));
    assert_eq!(config.get::<f64>("validation.threshold"), 1.0);
    assert_eq!(config.get::<String>("wallet.name"), "7");
}

#[test]
fn a_mapping_is_replaced_as_a_whole_and_may_name_what_it_likes() {
    let yaml = "wallet: {name: v}\nmetagraph: {whitelist: {5a.b: null, 5b: '1.2.3.4:5'}}";
    let config = load(yaml, &[], &[]).unwrap();
    let whitelist: BTreeMap<String, Option<String>> = config.get("metagraph.whitelist");
    assert_eq!(whitelist["5a.b"], None);
    assert_eq!(whitelist["5b"].as_deref(), Some("1.2.3.4:5"));
    let config = load(yaml, &[], &["metagraph.whitelist={5c: null}"]).unwrap();
    let whitelist: BTreeMap<String, Option<String>> = config.get("metagraph.whitelist");
    assert_eq!(whitelist.keys().collect::<Vec<_>>(), ["5c"]);
}

#[test]
fn secrets_are_never_printed_and_may_come_from_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "hunter2\n").unwrap();
    let config = load("wallet: {name: v}", &[("BYTELEAP_HUB__TOKEN_FILE", token.to_str().unwrap())], &[]).unwrap();
    assert_eq!(config.get::<Option<String>>("hub.token").as_deref(), Some("hunter2"));
    assert!(!config.effective().contains("hunter2"));
    assert!(!format!("{config:?}").contains("hunter2"));
    assert!(config.effective().contains("hub.token: (hidden)"));
    let error = load("wallet: {name: v}\nhub: {token: [hunter2]}", &[], &[]).unwrap_err();
    assert!(!format!("{error} {error:?}").contains("hunter2"));
    let error = load("wallet: {name: v}", &[], &["hub.token_file=/nonexistent"]).unwrap_err();
    assert!(error.to_string().contains("hub.token_file (--set): /nonexistent: cannot be opened"), "{error}");
}

#[test]
fn the_effective_configuration_shows_each_value_with_its_source() {
    let config = load("wallet: {name: v}", &[], &["port=4000"]).unwrap();
    let text = config.effective();
    let line = |start: &str| text.lines().find(|line| line.starts_with(start)).unwrap();
    assert!(line("port: 4000").ends_with("# --set"));
    assert!(line("wallet.name: v").ends_with("config.yaml"));
    assert!(line("validation.models: [\"H100 80GB\",\"B200\"]").ends_with("# default"));
    assert!(line("external_ip: null").ends_with("# default"));
    assert!(line("validation.threshold: 0.8").ends_with("# default, live"));
    assert_eq!(text.lines().count(), KEYS.len());
}

#[test]
fn the_example_file_holds_every_key_and_reads_back_as_the_defaults() {
    let text = example(KEYS);
    for key in KEYS {
        assert!(text.contains(&format!("# {}", key.comment)), "{}\n{text}", key.name);
    }
    assert!(text.contains("\nvalidation:\n  # share of challenges to pass (live)\n  threshold: 0.80\n"), "{text}");
    let error = load(&text, &[], &[]).unwrap_err();
    assert_eq!(error.problems.len(), 1, "only the required key is missing: {error}");
    assert_eq!(error.problems[0].subject, "wallet.name");
    let config = load(&text, &[], &["wallet.name=v"]);
    assert!(config.is_err(), "an empty required key stays an error");
    let config = load(&text.replace("name: # required", "name: v"), &[], &[]).unwrap();
    let defaults = load("wallet: {name: v}", &[], &[]).unwrap();
    assert!(config.warnings().is_empty());
    for (read, default) in config.entries.iter().zip(&defaults.entries) {
        assert_eq!(read.value, default.value, "{}", read.key.name);
    }
}

#[test]
fn a_file_that_is_missing_too_large_too_deep_or_not_yaml_is_one_problem() {
    let missing = Sources { file: Some("/nonexistent/config.yaml".into()), ..Sources::default() };
    let error = Config::load(KEYS, &missing).unwrap_err();
    assert!(error.to_string().contains("/nonexistent/config.yaml: cannot be opened"), "{error}");
    for yaml in [
        "- a list".to_owned(),
        "port: [".to_owned(),
        format!("port: 2000 # {}", "x".repeat(1 << 20)),
        format!("{}{}", "[".repeat(10_000), "]".repeat(10_000)),
    ] {
        let error = load(&yaml, &[], &[]).unwrap_err();
        assert_eq!(error.problems.len(), 1, "{error}");
        assert!(error.problems[0].subject.ends_with("config.yaml"), "{error}");
    }
}

#[test]
fn an_empty_file_is_an_empty_configuration() {
    let config = load("# nothing\n", &[], &["wallet.name=v"]).unwrap();
    assert_eq!(config.get::<u16>("port"), 9091);
}

proptest! {
    #[test]
    fn no_file_makes_the_reader_panic(
        text in r#"((port|gpu|wallet|enable|name|models|whitelist|hub|token_file|<<)?(: |\n  |\n|- |&a |\*a|[\[\]{},'"|>]|!!int |0x1F|yes|~|1_0|1:30|\.nan)){0,24}"#,
    ) {
        if let Err(error) = load(&text, &[], &[]) {
            prop_assert!(!error.problems.is_empty());
        }
    }

    #[test]
    fn every_key_takes_or_refuses_any_text_wherever_it_stands(key in 0..KEYS.len(), text in any::<String>()) {
        let name = KEYS[key].name;
        let assignment = format!("{name}={text}");
        let variable = format!("BYTELEAP_{}", name.replace('.', "__").to_uppercase());
        let loads = [
            load("wallet: {name: validator}", &[], &[&assignment]),
            load("wallet: {name: validator}", &[(&variable, &text)], &[]),
        ];
        for loaded in loads {
            match loaded {
                Ok(config) => prop_assert_eq!(config.effective().lines().count(), KEYS.len()),
                Err(error) => prop_assert!(error.problems.iter().all(|problem| problem.subject == name), "{error}"),
            }
        }
    }
}
