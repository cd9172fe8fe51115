//! The program as an operator meets it.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use byteleap_protocol::join::CertificateFingerprint;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};

use crate::miner::{Miner, WorkerEnd, soon};

fn worker(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_byteleap-worker"));
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap()).args(arguments);
    command.args(["--set", "http.listen=127.0.0.1:0"]);
    command.arg("--set").arg(format!("state_dir={}", folder.display()));
    command.arg("--set").arg(format!("logging.filepath={}", folder.join("worker.log").display()));
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

async fn output(mut command: Command) -> Output {
    soon(tokio::task::spawn_blocking(move || command.output())).await.unwrap().unwrap()
}

fn terminate(child: &Child) {
    let killed = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap();
    assert!(killed.success());
}

#[tokio::test]
async fn the_worker_joins_computes_and_leaves_with_1000_and_status_0_on_sigterm() {
    let folder = tempfile::tempdir().unwrap();
    let miner = Miner::start().await;
    let child = worker(folder.path(), &["--set", &format!("miner_url={}", miner.url())]).spawn().unwrap();
    let (mut connection, register) = miner.connection().await;
    assert_eq!(register.worker_version, env!("CARGO_PKG_VERSION"));
    assert!(register.system_info["cpu_count"].as_u64().unwrap() > 0);
    let kept = std::fs::read_to_string(folder.path().join("worker_id")).unwrap();
    assert_eq!(register.worker_id.as_str(), kept.trim());
    connection.acknowledge().await;
    connection.assign_cpu("c1").await;
    assert!(connection.result().await.data.success);
    connection.ask_for_rows("m1", "c1", &[0]).await;
    assert!(connection.proof().await.1.success);
    terminate(&child);
    assert_eq!(connection.end().await, WorkerEnd::Closed(1000));
    let output = soon(tokio::task::spawn_blocking(move || child.wait_with_output())).await.unwrap().unwrap();
    assert!(output.status.success(), "{output:?}");
    let log = std::fs::read_to_string(folder.path().join("worker.log")).unwrap();
    assert!(log.contains("challenge computed"), "{log}");
}

#[tokio::test]
async fn a_wrong_miner_url_ends_with_status_2_and_the_url_to_write() {
    let folder = tempfile::tempdir().unwrap();
    let output = output(worker(folder.path(), &["--set", "miner_url=203.0.113.7"])).await;
    assert_eq!(output.status.code(), Some(2));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("probably ws://203.0.113.7:7799"), "{told}");
}

#[tokio::test]
async fn check_tells_whether_a_miner_answers_and_keeps_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let miner = Miner::start().await;
    let url = format!("miner_url={}", miner.url());
    drop(miner);
    let output = output(worker(folder.path(), &["check", "--set", &url])).await;
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("worker_management.port"), "{told}");
    assert!(!folder.path().join("worker_id").exists());
}

#[tokio::test]
async fn status_of_a_worker_that_does_not_run_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let output = output(worker(folder.path(), &["status"])).await;
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8(output.stderr).unwrap();
    assert!(told.contains("is the daemon running"), "{told}");
}

/// Where the admin endpoint of a worker that has registered listens, as its log says.
fn admin(folder: &Path) -> String {
    let log = std::fs::read_to_string(folder.join("worker.log")).unwrap();
    let line = log.lines().find(|line| line.contains("admin endpoint listens")).unwrap_or_else(|| panic!("{log}"));
    let start = line.find("127.0.0.1:").unwrap();
    line[start..].split(|c: char| c.is_whitespace() || c == '"').next().unwrap().to_owned()
}

/// Runs a command against the worker whose admin endpoint is there; its status code and what it printed.
async fn ask(folder: &Path, admin: &str, arguments: &[&str]) -> (Option<i32>, String) {
    let mut command = worker(folder, arguments);
    command.arg("--set").arg(format!("http.listen={admin}"));
    let output = output(command).await;
    (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

#[tokio::test]
async fn status_and_drain_tell_of_a_running_worker_and_refuse_work_until_it_is_cancelled() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    let miner = Miner::start().await;
    let child = worker(folder, &["--set", &format!("miner_url={}", miner.url())]).spawn().unwrap();
    let mut connection = miner.registered().await;
    connection.assign_cpu("c1").await;
    assert!(connection.result().await.data.success);
    let admin = admin(folder);

    let (code, told) = ask(folder, &admin, &["drain", "--timeout", "0"]).await;
    assert_eq!(code, Some(1), "its proof is not given yet: {told}");
    assert!(told.contains("not yet safe") && told.contains("c1"), "{told}");
    connection.assign("c2", "cpu_matrix", serde_json::json!({"matrix_size": 8, "seed": "07"})).await;
    let refused = connection.result().await.data;
    assert!(!refused.success && refused.error.as_deref().unwrap().contains("drains"), "{refused:?}");
    connection.ask_for_rows("m1", "c1", &[0]).await;
    assert!(connection.proof().await.1.success, "what it has, it finishes");
    let (code, told) = ask(folder, &admin, &["drain"]).await;
    assert_eq!(code, Some(0), "{told}");
    assert!(told.contains("safe to stop"), "{told}");

    let (code, told) = ask(folder, &admin, &["status"]).await;
    assert_eq!(code, Some(0), "{told}");
    for part in ["registered", "not authenticated", "CPUs", "drain --cancel", "c2", "no result: the worker drains"] {
        assert!(told.contains(part), "{part}: {told}");
    }
    let (code, told) = ask(folder, &admin, &["drain", "--cancel"]).await;
    assert_eq!(code, Some(0), "{told}");
    connection.assign_cpu("c3").await;
    assert!(connection.result().await.data.success);
    let (_, told) = ask(folder, &admin, &["status", "--json"]).await;
    let status: serde_json::Value = serde_json::from_str(&told).unwrap();
    assert_eq!((&status["draining"], &status["last_challenge"]["challenge_id"]), (&false.into(), &"c3".into()));
    assert!(status["last_challenge"]["computation_time_ms"].as_f64().is_some_and(|ms| ms > 0.0), "{told}");
    terminate(&child);
    drop(connection);
    soon(tokio::task::spawn_blocking(move || child.wait_with_output())).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_worker_does_not_start_where_a_coldkey_lies() {
    let folder = tempfile::tempdir().unwrap();
    let coldkey = folder.path().join(".bittensor/wallets/main/coldkey");
    std::fs::create_dir_all(coldkey.parent().unwrap()).unwrap();
    std::fs::write(&coldkey, "$NACL").unwrap();
    for command in ["run", "check"] {
        let mut worker = worker(folder.path(), &[command, "--set", "miner_url=ws://127.0.0.1:1"]);
        worker.env("HOME", folder.path());
        let output = output(worker).await;
        assert_eq!(output.status.code(), Some(1), "{command}");
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(told.contains(coldkey.to_str().unwrap()), "{told}");
    }
}

/// A server on loopback that shakes hands with a certificate for `localhost`, valid between these years and vouched for by
/// an authority of its own, and is no miner. The port, the certificate and the authority.
async fn tls_server(years: (i32, i32)) -> (u16, CertificateDer<'static>, String) {
    let authority_key = KeyPair::generate().unwrap();
    let mut authority = CertificateParams::new(Vec::<String>::new()).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_pem = authority.self_signed(&authority_key).unwrap().pem();
    let key = KeyPair::generate().unwrap();
    let mut parameters = CertificateParams::new(["localhost".to_owned()]).unwrap();
    parameters.not_before = rcgen::date_time_ymd(years.0, 1, 1);
    parameters.not_after = rcgen::date_time_ymd(years.1, 1, 1);
    let certificate = parameters.signed_by(&key, &Issuer::new(authority, authority_key)).unwrap();
    let config = ServerConfig::builder_with_provider(ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = TlsAcceptor::from(std::sync::Arc::new(config.clone()));
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let _ = stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").await;
                let _ = tokio::io::copy(&mut stream, &mut tokio::io::sink()).await;
            });
        }
    });
    (port, certificate.der().clone(), authority_pem)
}

#[tokio::test]
async fn dates_of_a_certificate_count_where_an_authority_vouches_and_not_where_it_is_pinned() {
    let folder = tempfile::tempdir().unwrap();
    let authority_file = folder.path().join("authority.pem");
    let past_tls = "is not a miner's worker port";
    for (years, unpinned) in [
        ((2000, 4000), past_tls),
        ((2000, 2001), "the miner's certificate has expired: renew it there"),
        ((3999, 4000), "the miner's certificate is not valid yet: check the clocks"),
    ] {
        let (port, certificate, authority) = tls_server(years).await;
        std::fs::write(&authority_file, authority).unwrap();
        let url = format!("miner_url=wss://localhost:{port}");
        let pin = format!("miner_fingerprint={}", CertificateFingerprint::of(&certificate));
        for (more, expected) in [(&[][..], unpinned), (&["--set", &pin][..], past_tls)] {
            let mut command = worker(folder.path(), &["check", "--set", &url]);
            command.args(more).env("SSL_CERT_FILE", &authority_file);
            let told = String::from_utf8(output(command).await.stderr).unwrap();
            assert!(told.contains(expected), "{years:?} {more:?}: {told}");
        }
    }
}

#[tokio::test]
async fn doctor_finds_what_keeps_this_machine_from_being_a_worker_and_says_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let archive = folder.path().join("support.tar.gz");
    let miner = ["--set", "miner_url=ws://127.0.0.1:1"];
    let json = output(worker(folder.path(), &[&["doctor", "--json"], &miner[..]].concat())).await;
    let report: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    let checks = report["checks"].as_array().unwrap();
    let check = |name: &str| checks.iter().find(|check| check["requirement"] == name).unwrap();
    assert_eq!((check("miner reachable")["verdict"].as_str(), json.status.code()), (Some("blocker"), Some(1)));
    assert!(
        checks
            .iter()
            .all(|check| check["verdict"] == "ok" || check["advice"].as_str().is_some_and(|text| !text.is_empty()))
    );
    let archive_path = archive.to_str().unwrap();
    let text = output(worker(folder.path(), &[&["doctor", "--bundle", archive_path], &miner[..]].concat())).await;
    let told = String::from_utf8(text.stdout).unwrap();
    assert!(told.contains("✗ miner reachable") && told.contains(archive_path), "{told}");
    assert!(std::fs::metadata(archive).unwrap().len() > 100);
}

#[tokio::test]
async fn the_gpu_commands_answer_with_the_exit_codes_of_old() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(folder.path().join("sys/bus/pci/devices")).unwrap();
    let code = async |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_byteleap-worker"));
        command.args(arguments).env("BYTELEAP_HOST_ROOT", folder.path());
        output(command).await.status.code()
    };
    assert_eq!(code(&["list"]).await, Some(0));
    assert_eq!(code(&["verify"]).await, Some(1), "nothing is bound");
    assert_eq!(code(&["debug"]).await, Some(0));
    assert_eq!(code(&["bind"]).await, Some(1), "there is no GPU");
    assert_eq!(code(&["unbind", "--yes"]).await, Some(1), "there is nothing to undo");
    let leftover = folder.path().join("var/lib/byteleap-gpu/20261124T200000Z");
    std::fs::create_dir_all(&leftover).unwrap();
    std::fs::write(leftover.join("0.after"), "").unwrap();
    assert_eq!(code(&["unbind"]).await, Some(0), "a run that was killed before its first change left this");
    assert!(!folder.path().join("var/lib/byteleap-gpu").exists());
    for wrong in [["bind", "0"], ["bind", "many"], ["bind", "-1"], ["release", "1"]] {
        assert_eq!(code(&wrong).await, Some(2), "{wrong:?}");
    }
}
