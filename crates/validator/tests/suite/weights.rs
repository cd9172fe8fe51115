//! `weights` without the wallet: what is read is in the database and on the chain.

use super::database::{text, validator};

#[test]
fn only_submit_opens_the_wallet() {
    let folder = tempfile::tempdir().unwrap();
    let url = format!("sqlite:///{}", folder.path().join("validator.db").display());
    assert!(validator(&url, &["migrate", "up"]).status.success());
    let told = |command: &[&str]| {
        let mut arguments = vec!["--set", "wallet.path=/nowhere", "--set", "subtensor.network=ws://127.0.0.1:9"];
        arguments.extend(command);
        let output = validator(&url, &arguments);
        (output.status.code(), text(&output))
    };
    let (code, shown) = told(&["weights", "show"]);
    assert_eq!((code, shown.as_str()), (Some(0), "no weights were submitted yet\n"));
    let (code, replayed) = told(&["weights", "replay"]);
    assert!(code == Some(1) && replayed.contains("there is no such scoring round"), "{replayed}");
    // A hotkey that is given is enough; then the chain is asked, which is not there.
    let hotkey = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY";
    for command in ["preview", "diff"] {
        let (code, refused) = told(&["weights", command, "--hotkey", hotkey]);
        assert!(code == Some(1) && refused.contains("chain") && !refused.contains("/nowhere"), "{refused}");
    }
    let (code, refused) = told(&["weights", "submit"]);
    assert!(code == Some(1) && refused.contains("/nowhere"), "{refused}");
}
