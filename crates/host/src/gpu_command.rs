//! `bind`, `unbind`, `verify`, `list` and `debug` (vm-and-gpu-host spec 4.1), also by way of `bin/vfio-setup`.

use std::fmt::{self, Write as _};
use std::io::{self, BufRead as _, IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use clap::{Args, Subcommand};
use serde_json::json;
use time::OffsetDateTime;
use time::macros::format_description;

use crate::debug;
use crate::gpu::report::{self, Verification};
use crate::gpu::{Inventory, Unit, holders};
use crate::host_fs::HostFs;
use crate::pci::{Address, NVIDIA};
use crate::program::{NotHere, Programs, ThisMachine};
use crate::vfio::edit::Edit;
use crate::vfio::obstacles::{Allowed, Obstacle, obstacles};
use crate::vfio::plan::{self, Plan, Wish};
use crate::vfio::{self, Binder, files, former};

/// The environment variable that names another root than `/`, as tests do.
pub const ROOT_VARIABLE: &str = "BYTELEAP_HOST_ROOT";

/// The commands.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum GpuCommand {
    /// Hand the first N NVIDIA GPUs, or all, to vfio-pci for virtual machines from the next boot on.
    Bind(BindArgs),
    /// Put back everything that bind changed, or free the last N GPUs.
    Unbind(UnbindArgs),
    /// Show which GPUs are bound: exit 0 bound, 1 not bound or only after a restart.
    Verify(ShowArgs),
    /// List all GPUs with their companions, isolation groups and users.
    List(ShowArgs),
    /// Print a report for support, secrets removed.
    Debug(DebugArgs),
}

/// Where to look.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct RootArgs {
    /// Work below this folder instead of `/`, and run no programs.
    #[arg(long, value_name = "DIR", env = ROOT_VARIABLE)]
    pub root: Option<PathBuf>,
    /// Vendor of the GPUs, for tests with emulated ones.
    #[arg(long, value_name = "ID", hide = true, default_value = "10de", value_parser = vendor_id)]
    pub vendor: u16,
}

/// Flags of `bind`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct BindArgs {
    /// How many GPUs, in the order of their addresses; without a number all.
    #[arg(value_name = "N", value_parser = count)]
    pub count: Option<usize>,
    /// These GPUs instead, by address as `list` shows it.
    #[arg(long, value_name = "ADDRESS", num_args = 1.., conflicts_with = "count")]
    pub pci: Vec<Address>,
    /// Show what would be changed, and change nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask.
    #[arg(long)]
    pub yes: bool,
    /// Bind at once too, without a restart.
    #[arg(long)]
    pub now: bool,
    /// Bind the GPU that shows the console, too.
    #[arg(long)]
    pub allow_console: bool,
    /// Bind unused devices that share an isolation group with a GPU, too.
    #[arg(long)]
    pub with_group: bool,
    /// Set kernel parameters that only old checkers ask for, too.
    #[arg(long)]
    pub compat: bool,
    /// Accepted from old scripts: bind installs no packages.
    #[arg(long, hide = true)]
    pub no_install: bool,
    /// Bind inside a virtual machine, for tests.
    #[arg(long, hide = true)]
    pub allow_virtual_machine: bool,
    /// Where.
    #[command(flatten)]
    pub place: RootArgs,
}

/// Flags of `unbind`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct UnbindArgs {
    /// Free only so many, the last ones; without a number all.
    #[arg(value_name = "N", value_parser = count)]
    pub count: Option<usize>,
    /// Show what would be changed, and change nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// Do not ask.
    #[arg(long)]
    pub yes: bool,
    /// Give the GPUs back to their drivers at once.
    #[arg(long)]
    pub now: bool,
    /// Where.
    #[command(flatten)]
    pub place: RootArgs,
}

/// Flags of `verify` and `list`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct ShowArgs {
    /// As JSON.
    #[arg(long)]
    pub json: bool,
    /// Where.
    #[command(flatten)]
    pub place: RootArgs,
}

/// Flags of `debug`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct DebugArgs {
    /// Write the report and the files that it speaks of into an archive (.tar.gz).
    #[arg(long, value_name = "FILE")]
    pub bundle: Option<PathBuf>,
    /// Where.
    #[command(flatten)]
    pub place: RootArgs,
}

/// Why a command did not do what was asked; the exit code is 1.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Only root may do this.
    #[error("this needs root: run it with sudo, or with --dry-run to see what it would do")]
    NotRoot,
    /// Something is in the way.
    #[error("nothing was changed: see what was refused above")]
    Refused,
    /// The question was not answered with yes.
    #[error("nothing was changed: confirm with yes, or by --yes")]
    NotConfirmed,
    /// There is nothing to undo.
    #[error("there is nothing to undo: no backup of bind and no file of the former vfio-setup")]
    NothingToUndo,
    /// No GPU is bound, or some only after a restart.
    #[error("not all is bound: {0}")]
    NotBound(String),
    /// Binding or unbinding failed.
    #[error(transparent)]
    Vfio(#[from] vfio::Error),
    /// Standard output or a file cannot be used.
    #[error("cannot write the output")]
    Output(#[from] io::Error),
}

impl RootArgs {
    fn host(&self) -> HostFs {
        HostFs::new(self.root.as_deref().unwrap_or(Path::new("/")))
    }
}

impl GpuCommand {
    /// Runs the command.
    ///
    /// # Errors
    /// As [`Error`].
    pub fn execute(&self) -> Result<(), Error> {
        match self {
            Self::Bind(args) => bind(args),
            Self::Unbind(args) => unbind(args),
            Self::Verify(args) => verify(args),
            Self::List(args) => list(args),
            Self::Debug(args) => print(&debug::run(&args.place.host(), args.bundle.as_deref())?),
        }
    }
}

/// The programs of a machine: none of one that is not this.
fn programs(host: &HostFs) -> &'static dyn Programs {
    if host.is_live() { &ThisMachine } else { &NotHere }
}

/// What `bind` would do on a machine.
#[derive(Clone, Debug)]
pub struct Proposal {
    /// What is in the way.
    pub obstacles: Vec<Obstacle>,
    /// The plan; none if something refuses it.
    pub plan: Option<Plan>,
    runs_programs: bool,
}

impl Proposal {
    /// Looks at the machine and plans.
    ///
    /// # Errors
    /// There are no such GPUs, or the machine boots in an unknown way.
    pub fn new(host: &HostFs, args: &BindArgs) -> Result<Self, vfio::Error> {
        let inventory = Inventory::read(host);
        let available = inventory.units_of(args.place.vendor);
        let mut units = vfio::select(&available, args.count, &args.pci)?;
        let binds_all = units.len() == available.len();
        if binds_all {
            units.extend(inventory.nvswitches().map(Unit::of_switch));
        }
        let allowed = Allowed {
            console: args.allow_console,
            group: args.with_group,
            virtual_machine: args.allow_virtual_machine,
        };
        let obstacles = obstacles(host, &inventory, &units, allowed);
        let mut plan = None;
        if obstacles.iter().all(|obstacle| obstacle.is_warning) {
            if args.with_group {
                units.iter_mut().for_each(Unit::take_strangers);
            }
            plan = Some(plan::plan(host, units, Wish { binds_all, for_old_checkers: args.compat })?);
        }
        Ok(Self { obstacles, plan, runs_programs: host.is_live() })
    }
}

impl fmt::Display for Proposal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.obstacles.iter().try_for_each(|obstacle| writeln!(out, "{obstacle}"))?;
        match &self.plan {
            Some(plan) if plan.is_empty() => writeln!(out, "no file has to change"),
            Some(plan) => out.write_str(&text(&plan.units, &plan.edits, &plan.commands, self.runs_programs)),
            None => Ok(()),
        }
    }
}

fn bind(args: &BindArgs) -> Result<(), Error> {
    let host = args.place.host();
    need_root(&host, args.dry_run)?;
    let proposal = Proposal::new(&host, args)?;
    print(&proposal.to_string())?;
    let plan = proposal.plan.ok_or(Error::Refused)?;
    let moves = if args.now { vfio::live::to_move(&plan.units).len() } else { 0 };
    if plan.is_empty() && moves == 0 {
        return print(&format!("Nothing to do: {}\n", after_bind(&plan, true)));
    }
    if args.dry_run {
        return print("Nothing was changed (--dry-run).\n");
    }
    confirm(args.yes, &format!("Bind {} GPUs?", plan.units.len()))?;
    Binder { host: &host, programs: programs(&host) }.bind(&plan, &run_name(), args.now)?;
    print(&format!("Done: {}\n", after_bind(&plan, args.now)))
}

fn after_bind(plan: &Plan, now: bool) -> String {
    let next = if now { "" } else { ", after a restart: sudo reboot, then byteleap-worker verify" };
    format!("{} GPUs are set up for vfio-pci{next}", plan.units.len())
}

fn unbind(args: &UnbindArgs) -> Result<(), Error> {
    let host = args.place.host();
    need_root(&host, args.dry_run)?;
    let inventory = Inventory::read(&host);
    let units = inventory.units_of(args.place.vendor);
    let listed = files::addresses(&host.text(files::UNITS).unwrap_or_default());
    let bound: Vec<Unit> = units.iter().filter(|unit| listed.contains(&unit.gpu.address)).cloned().collect();
    let freed = args.count.unwrap_or(bound.len()).min(bound.len());
    let (kept, released) = bound.split_at(bound.len() - freed);
    let users = holders::of(&host, released.iter().filter(|unit| unit.gpu.is_bound()));
    if !users.is_empty() {
        let lines: String =
            users.iter().map(|holder| format!("refused: {holder}\n         {}\n", holder.advice())).collect();
        print(&lines)?;
        return Err(Error::Refused);
    }
    let binder = Binder { host: &host, programs: programs(&host) };
    if !kept.is_empty() {
        let wish = Wish { binds_all: false, for_old_checkers: false };
        let plan = plan::plan(&host, kept.to_vec(), wish)?;
        print(&text(&plan.units, &plan.edits, &plan.commands, host.is_live()))?;
        if args.dry_run {
            return print("Nothing was changed (--dry-run).\n");
        }
        confirm(args.yes, &format!("Free {freed} GPUs?"))?;
        binder.bind(&plan, &run_name(), false)?;
        return print(&format!("Done: {freed} GPUs are freed after a restart: sudo reboot\n"));
    }
    let undoing = binder.undoing()?;
    if undoing.runs == 0 && undoing.has_leftovers && !args.dry_run {
        binder.unbind(args.now)?;
        return print("Done: an interrupted run had changed nothing yet; what it left of a backup is removed\n");
    }
    if undoing.runs == 0 {
        return remove_former(&binder, args);
    }
    print(&text(&[], &undoing.edits, &undoing.commands, host.is_live()))?;
    if args.dry_run {
        return print("Nothing was changed (--dry-run).\n");
    }
    confirm(args.yes, "Put everything back?")?;
    let mut answer = String::new();
    for path in binder.unbind(args.now)? {
        let _ = writeln!(answer, "notice: {path} was changed by others since: only our lines were taken out");
    }
    let next = if args.now { "" } else { "; the GPUs are free after a restart: sudo reboot" };
    let _ = writeln!(answer, "Done: everything is as it was before bind{next}");
    if !former::removal(&host)?.is_empty() {
        answer.push_str("The former vfio-setup's files bind GPUs too: run unbind once more to remove them\n");
    }
    print(&answer)
}

/// Removes what the former helper left, where nothing of ours is left to undo.
fn remove_former(binder: &Binder<'_>, args: &UnbindArgs) -> Result<(), Error> {
    let edits = former::removal(binder.host)?;
    if edits.is_empty() {
        return Err(Error::NothingToUndo);
    }
    print(&format!("These are files of the former vfio-setup.\n{}", text(&[], &edits, &[], binder.host.is_live())))?;
    if args.dry_run {
        return print("Nothing was changed (--dry-run).\n");
    }
    confirm(args.yes, "Remove them?")?;
    binder.remove_former(&edits, &run_name())?;
    print("Done: copies lie in /var/lib/byteleap-gpu; the GPUs are free after a restart: sudo reboot\n")
}

fn verify(args: &ShowArgs) -> Result<(), Error> {
    let verification = Verification::read(&args.place.host(), args.place.vendor);
    match args.json {
        true => print(&format!("{:#}\n", json!(verification)))?,
        false => print(&verification.to_string())?,
    }
    if verification.is_bound() { Ok(()) } else { Err(Error::NotBound(verification.next)) }
}

fn list(args: &ShowArgs) -> Result<(), Error> {
    let host = args.place.host();
    if !args.json {
        return print(&report::list(&host));
    }
    let units = Inventory::read(&host).units();
    let entry = |unit: &Unit| json!({ "name": unit.gpu.name(), "unit": unit, "in_use_by": holders::of(&host, [unit]) });
    print(&format!("{:#}\n", json!(units.iter().map(entry).collect::<Vec<_>>())))
}

/// A plan for people: what is bound, which files differ how, which programs run.
fn text(units: &[Unit], edits: &[Edit], commands: &[Vec<String>], runs: bool) -> String {
    let mut text = String::new();
    for unit in units {
        let _ = writeln!(text, "{} {}", unit.gpu.address, unit.gpu.name());
        for companion in &unit.companions {
            let _ = writeln!(text, "  with {} {}", companion.address, companion.role);
        }
    }
    edits.iter().for_each(|edit| text.push_str(&edit.to_string()));
    for command in commands {
        let note = if runs { "" } else { " (not in another root)" };
        let _ = writeln!(text, "run {}{note}", command.join(" "));
    }
    text
}

fn need_root(host: &HostFs, only_shows: bool) -> Result<(), Error> {
    let may = only_shows || !host.is_live() || nix::unistd::geteuid().is_root();
    if may { Ok(()) } else { Err(Error::NotRoot) }
}

/// Asks on the terminal; without one nobody can say yes.
fn confirm(is_confirmed: bool, question: &str) -> Result<(), Error> {
    if is_confirmed {
        return Ok(());
    }
    if !io::stdin().is_terminal() {
        return Err(Error::NotConfirmed);
    }
    print(&format!("{question} Type yes: "))?;
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    if answer.trim() == "yes" { Ok(()) } else { Err(Error::NotConfirmed) }
}

fn print(text: &str) -> Result<(), Error> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // Whoever reads the output has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        done => Ok(done?),
    }
}

/// The name of a run: its time, as `20261124T201005Z`.
fn run_name() -> String {
    let form = format_description!("[year][month][day]T[hour][minute][second]Z");
    OffsetDateTime::from(SystemTime::now()).format(form).unwrap_or_else(|_| "unknown-time".to_owned())
}

fn count(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|count| *count > 0).ok_or_else(|| "a number from 1".to_owned())
}

fn vendor_id(text: &str) -> Result<u16, String> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    u16::from_str_radix(digits, 16).map_err(|_| format!("a vendor id as {NVIDIA:04x}"))
}
