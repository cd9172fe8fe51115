//! Lays one of the tests' machines out below a folder, to see commands work on it:
//! `cargo run -p byteleap-host --example lay_out -- eight-3090 /tmp/m`, then `byteleap-worker list --root /tmp/m`.

#![expect(clippy::unwrap_used, clippy::panic, reason = "shared with the tests, where a panic is the report")]

#[path = "../tests/host/machine.rs"]
mod machine;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [name, folder] if machine::names().contains(name) => machine::lay_out(name, folder.as_ref()),
        _ => {
            eprintln!("usage: lay_out MACHINE FOLDER, with one of these machines: {}", machine::names().join(" "));
            std::process::exit(2);
        }
    }
}
