//! `bench round`: how long a round takes on a full subnet, from reading the facts to the stored scores.
//!
//! Between two rounds the subnet lives on for one scoring interval, so that each has something new to read.

use std::fs;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use byteleap_chain::{FixedChain, Hotkey};
use byteleap_daemon::cli::{self, Failure};
use byteleap_daemon::clock::{Clock, ManualClock};
use byteleap_scoring::Rules;
use clap::Args;
use serde::Serialize;

use crate::score::Scorer;
use crate::score::facts::Known;
use crate::store::{DatabaseUrl, Store};

/// The subnet of the bench.
const NETUID: u16 = 128;
/// Its clock at the first round.
const START_MS: i64 = 1_761_955_200_000;
/// Time between rounds, as by default.
const INTERVAL: Duration = Duration::from_secs(420);

/// The subnet that is scored.
#[derive(Debug, Clone, Args)]
pub struct RoundArgs {
    /// How many miners take part.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..=4096))]
    miners: u16,
    /// Workers of each.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(i64).range(1..=1000))]
    workers: i64,
    /// How many rounds are timed, the first one aside.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// An empty database to use; without it a SQLite file that is gone afterwards.
    #[arg(long)]
    url: Option<DatabaseUrl>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
}

/// What `bench round --json` prints.
#[derive(Debug, Serialize)]
struct RoundReport {
    /// Median over the timed rounds.
    median_ms: f64,
    /// The first round after a start, which reads everything.
    first_ms: f64,
    miners: u16,
    workers: i64,
    /// Challenges with a verdict in the database.
    challenges: i64,
    rounds: u32,
}

/// Fills a database, scores it and prints how long that took.
///
/// # Errors
/// The database is not empty or cannot be used; or standard output is closed.
pub(super) fn run(args: &RoundArgs) -> Result<(), Failure> {
    cli::block_on(async {
        let report = match &args.url {
            Some(url) => measure(args, url).await?,
            None => {
                let folder = std::env::temp_dir().join(format!("byteleap-bench-{}", std::process::id()));
                fs::create_dir(&folder)?;
                let url = format!("sqlite:///{}", folder.join("validator.db").display());
                let measured = measure(args, &url.parse()?).await;
                fs::remove_dir_all(&folder)?;
                measured?
            }
        };
        print(args, &report)
    })
}

fn print(args: &RoundArgs, report: &RoundReport) -> Result<(), Failure> {
    if args.json {
        return Ok(writeln!(io::stdout(), "{}", serde_json::to_string(report)?)?);
    }
    let RoundReport { median_ms, first_ms, miners, workers, challenges, rounds } = report;
    Ok(writeln!(
        io::stdout(),
        "{miners} miners of {workers} workers, {challenges} challenges: {median_ms:.0} ms a round (median of {rounds}), \
         {first_ms:.0} ms the first"
    )?)
}

async fn measure(args: &RoundArgs, url: &DatabaseUrl) -> Result<RoundReport, Failure> {
    let store = Store::open(url).await?;
    store.migrate_up(START_MS).await?;
    if !store.is_empty().await? {
        return Err(Failure::usage(format!("{url} holds the records of a validator; name an empty database")));
    }
    let hotkey = |uid: u16| {
        let mut bytes = [7; 32];
        bytes[..2].copy_from_slice(&uid.to_be_bytes());
        Hotkey(bytes)
    };
    let hotkeys: Vec<Hotkey> = (0..args.miners).map(hotkey).collect();
    store.settle_crowd(&hotkeys, args.workers, START_MS).await?;
    let clock = Arc::new(ManualClock::new(START_MS));
    let chain = Arc::new(FixedChain::of(NETUID, &hotkeys));
    let scorer =
        Scorer { store: store.clone(), chain, netuid: NETUID, clock: clock.clone(), rules: Rules::default().into() };

    let mut known = Known::default();
    let first_ms = timed(&scorer, &mut known).await?;
    let mut times_ms = Vec::new();
    for _ in 0..args.rounds {
        let since_ms = clock.unix_ms();
        clock.advance(INTERVAL);
        store.live_on(since_ms, clock.unix_ms()).await?;
        times_ms.push(timed(&scorer, &mut known).await?);
    }
    times_ms.sort_by(f64::total_cmp);
    let report = RoundReport {
        median_ms: times_ms[times_ms.len() / 2],
        first_ms,
        miners: args.miners,
        workers: args.workers,
        challenges: store.verdicts().await?,
        rounds: args.rounds,
    };
    store.close().await;
    Ok(report)
}

async fn timed(scorer: &Scorer, known: &mut Known) -> Result<f64, Failure> {
    let started = Instant::now();
    scorer.score_from(known).await?;
    Ok(started.elapsed().as_secs_f64() * 1000.0)
}
