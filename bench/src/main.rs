//! Measures what Latchkey costs an Envoy: CPU per request, latency and memory, beside an Envoy
//! without it and one with a Lua script that rewrites the same headers.
//!
//! All gateways run side by side, one worker each, on one core; the callers and the upstream
//! are this program, on another. The gateways are loaded in turn, a second at a time, in an
//! order that changes with each round, and compared within the round: on a noisy machine only
//! ratios hold.

mod answers;
mod calls;
mod events;
mod fleet;
mod gateway;
mod load;
mod refresher;
mod report;
mod soak;
mod translation;
mod upstream;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use clap::Parser;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use tokio::task::LocalSet;

use crate::{
    answers::Dialect,
    events::Delays,
    fleet::{Fleet, With},
    gateway::{Filters, Gateway, Variant},
    load::{Answer, Callers},
    report::{Row, Slice, Table},
    upstream::Upstream,
};

/// The connections that load a gateway. Its core is then never idle.
const CONNECTIONS: usize = 16;

/// A slice is so long under load, for CPU …
const LOAD: Duration = Duration::from_millis(800);

/// … and so long with one request at a time, for latency: under load it is the queue's.
const PROBE: Duration = Duration::from_millis(200);

/// The time for which each gateway streams a round for the delay of events.
const STREAM: Duration = Duration::from_millis(800);

/// The time for which each gateway is loaded before it counts: V8 compiles hot functions anew.
const WARM_UP: Duration = Duration::from_secs(1);

const SMALL: Fleet = Fleet {
    size: 10,
    with: With::Nothing,
};
const LARGE: Fleet = Fleet {
    size: 10_000,
    ..SMALL
};
const LIMITED: Fleet = Fleet {
    with: With::Limits,
    ..SMALL
};
const READ: Fleet = Fleet {
    with: With::Models,
    ..SMALL
};
const TRANSLATED: Fleet = Fleet {
    with: With::Only(Dialect::Responses),
    ..SMALL
};
const WITHOUT_METERING: &str = "… without metering";
const WITHOUT_VERDICTS: &str = "… and without verdicts";
const SOAKED: Fleet = Fleet { size: 100, ..SMALL };

/// Measures CPU per request, latency and memory of an Envoy with Latchkey.
#[derive(Debug, Parser)]
struct Options {
    /// The Envoy to run.
    #[arg(long, env = "LATCHKEY_ENVOY")]
    envoy: PathBuf,

    /// The filter.
    #[arg(long, env = "LATCHKEY_WASM")]
    wasm: PathBuf,

    /// The filter, built to meter nothing, to show what that costs.
    #[arg(long, env = "LATCHKEY_WITHOUT_METERING_WASM")]
    without_metering: Option<PathBuf>,

    /// The filter, built to let every answer pass unseen, to show what verdicts and failover cost.
    #[arg(long, env = "LATCHKEY_WITHOUT_VERDICTS_WASM")]
    without_verdicts: Option<PathBuf>,

    /// The filter, made to count its calls by scripts/count-hostcalls.py.
    #[arg(long, env = "LATCHKEY_COUNTING_WASM")]
    counting: Option<PathBuf>,

    /// In place of all that: how often a request goes into and out of the VM. Takes seconds.
    #[arg(long, requires = "counting")]
    calls: bool,

    /// Another build of the filter, to measure beside it; may be given several times.
    #[arg(long)]
    compare: Vec<PathBuf>,

    /// The number of times that each gateway is loaded with each kind of answer.
    #[arg(long, default_value_t = 15)]
    rounds: usize,

    /// Three rounds: shows that everything runs, not what it costs.
    #[arg(long)]
    quick: bool,

    /// In place of all that: how late the events of streams come, nothing else. Takes a minute.
    #[arg(long)]
    events: bool,

    /// In place of all that: what a body of 20 MB and a thousand streams at once take where they are
    /// translated, and where they are not. Takes a minute.
    #[arg(long)]
    translation: bool,

    /// In place of all that: a million requests and ten thousand changes of the snapshot, and
    /// what memory does meanwhile. Takes about five minutes.
    #[arg(long)]
    soak: bool,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(LocalSet::new().run_until(measure(&options)))
}

async fn measure(options: &Options) -> Result<()> {
    let cores = Cores::of_this_machine()?;
    let scratch = tempfile::tempdir()?;
    let upstream = Upstream::start().await?;

    // A gateway that is alone, with both filters of this build.
    let alone = async |name: &str, wasm: &Path, fleet| {
        let directory = scratch.path().join(name);
        fs::create_dir(&directory)?;
        cores.use_for_gateways()?;
        let variant = Variant {
            name: name.to_owned(),
            filters: Filters::GateAndAttempt(wasm.to_owned()),
            fleet,
        };
        let gateway = Gateway::start(variant, &options.envoy, &directory, &upstream)?;
        cores.use_for_load()?;
        let callers = gateway.ready(CONNECTIONS, &upstream).await?;
        anyhow::Ok((gateway, callers))
    };
    if options.soak {
        let (gateway, callers) = alone("soak", &options.wasm, SOAKED).await?;
        return soak::soak(&gateway, callers, CONNECTIONS).await;
    }
    if options.translation {
        for (name, fleet) in [("passed through", SMALL), ("translated", TRANSLATED)] {
            let (gateway, callers) = alone(name, &options.wasm, fleet).await?;
            translation::print(&gateway, callers).await?;
        }
        return Ok(());
    }
    if let Some(wasm) = &options.counting
        && !options.events
    {
        let (gateway, mut callers) = alone("calls", wasm, SMALL).await?;
        calls::print(&gateway, &mut callers).await?;
        println!();
    }
    if options.calls {
        return Ok(());
    }

    cores.use_for_gateways()?;
    let mut gateways = Vec::new();
    let mut variants = variants(options)?;
    if options.events {
        let fits = |fleet| fleet == SMALL || fleet == LARGE;
        variants.retain(|variant| match variant.filters {
            Filters::Plain => true,
            Filters::GateAndAttempt(ref wasm) => *wasm == options.wasm && fits(variant.fleet),
            Filters::Lua | Filters::Gate(_) => false,
        });
    }
    for (number, variant) in variants.into_iter().enumerate() {
        let directory = scratch.path().join(number.to_string());
        fs::create_dir(&directory)?;
        gateways.push(Gateway::start(
            variant,
            &options.envoy,
            &directory,
            &upstream,
        )?);
    }
    cores.use_for_load()?;

    let mut callers = Vec::new();
    for gateway in &gateways {
        callers.push(gateway.ready(CONNECTIONS, &upstream).await?);
    }
    for callers in &mut callers {
        for answer in [Answer::Json, Answer::Sse] {
            callers.run(answer, CONNECTIONS, WARM_UP / 2).await?;
        }
    }

    let mut rows: Vec<Row> = gateways
        .iter()
        .map(|gateway| Row {
            name: gateway.variant.name.clone(),
            ..Row::default()
        })
        .collect();
    let rounds = if options.quick { 3 } else { options.rounds };
    if options.events {
        events::print(&measure_events(&gateways, &mut callers, rounds).await?);
        return Ok(());
    }
    for round in 0..rounds {
        for answer in [Answer::Json, Answer::Sse] {
            for turn in 0..gateways.len() {
                let at = (round + turn) % gateways.len();
                let slice = load(&gateways[at], &mut callers[at], answer).await?;
                rows[at].push(answer, slice);
            }
        }
    }
    for (row, gateway) in rows.iter_mut().zip(&gateways) {
        row.resident_kib = gateway.resident_kib()?;
    }
    print(&rows, rounds);
    println!();
    events::print(&measure_events(&gateways, &mut callers, rounds).await?);
    Ok(())
}

/// The delays of events at a plain Envoy, behind gate and attempt, and where each request was
/// tried on another account first: there are then so many that no one fails often.
async fn measure_events(
    gateways: &[Gateway],
    callers: &mut [Callers],
    rounds: usize,
) -> Result<Vec<Delays>> {
    let of = |filters: fn(&Filters) -> bool, fleet| {
        let is =
            |gateway: &Gateway| filters(&gateway.variant.filters) && gateway.variant.fleet == fleet;
        gateways.iter().position(is).context("no such gateway")
    };
    let with_both = |filters: &Filters| matches!(filters, Filters::GateAndAttempt(_));
    let at = [
        (
            of(|filters| *filters == Filters::Plain, SMALL)?,
            false,
            "plain Envoy",
        ),
        (of(with_both, SMALL)?, false, "gate + attempt"),
        (
            of(with_both, LARGE)?,
            true,
            "gate + attempt, after a failover",
        ),
    ];
    let mut all = at.map(|(_, _, name)| Delays::of(name));
    // A first round, which does not count: V8 compiles hot functions anew.
    for round in 0..=rounds {
        for turn in 0..at.len() {
            let which = (round + turn) % at.len();
            let (gateway, fails, _) = at[which];
            let mut unused = Delays::default();
            let delays = if round == 0 {
                &mut unused
            } else {
                &mut all[which]
            };
            delays
                .measure(&gateways[gateway], &mut callers[gateway], fails, STREAM)
                .await?;
        }
    }
    Ok(all.into())
}

/// The rows of the table: the first is what the others are compared with, the fourth what those
/// after it add to, or leave something out of.
fn variants(options: &Options) -> Result<Vec<Variant>> {
    let wasm = options.wasm.clone();
    let variant = |name: &str, filters, fleet| Variant {
        name: name.to_owned(),
        filters,
        fleet,
    };
    let mut variants = vec![
        variant("plain Envoy", Filters::Plain, SMALL),
        variant("Lua, same headers", Filters::Lua, SMALL),
        variant("gate", Filters::Gate(wasm.clone()), SMALL),
        variant(
            "gate + attempt",
            Filters::GateAndAttempt(wasm.clone()),
            SMALL,
        ),
        variant(
            "gate + attempt, 10,000",
            Filters::GateAndAttempt(wasm.clone()),
            LARGE,
        ),
        variant(
            "… with every limit",
            Filters::GateAndAttempt(wasm.clone()),
            LIMITED,
        ),
        variant(
            "… body read whole",
            Filters::GateAndAttempt(wasm.clone()),
            READ,
        ),
        variant(
            "… translated into responses",
            Filters::GateAndAttempt(wasm),
            TRANSLATED,
        ),
    ];
    let without = [
        (WITHOUT_METERING, &options.without_metering),
        (WITHOUT_VERDICTS, &options.without_verdicts),
    ];
    for (name, wasm) in without {
        let wasm = wasm.clone().map(Filters::GateAndAttempt);
        variants.extend(wasm.map(|filters| variant(name, filters, SMALL)));
    }
    for wasm in &options.compare {
        let name = wasm.file_stem().context("--compare needs a file")?;
        for (what, fleet) in [("gate + attempt", SMALL), ("… with every limit", LIMITED)] {
            let name = format!("{what}, {}", name.display());
            variants.push(variant(&name, Filters::GateAndAttempt(wasm.clone()), fleet));
        }
    }
    Ok(variants)
}

/// One slice of load.
async fn load(gateway: &Gateway, callers: &mut Callers, answer: Answer) -> Result<Slice> {
    let before = gateway.cpu_time()?;
    let requests = callers.run(answer, CONNECTIONS, LOAD).await?.len();
    let cpu = gateway.cpu_time()? - before;
    let taken = callers.run(answer, 1, PROBE).await?;
    Ok(Slice::new(cpu, requests, &taken))
}

fn print(rows: &[Row], rounds: usize) {
    println!("{}", machine());
    println!();
    println!(
        "CPU: µs for each request with {CONNECTIONS} connections; p50 and p99: µs until the last \
         byte, one request at a time; median of {rounds} rounds (quartiles); {} accounts and keys, \
         or {}.",
        SMALL.size, LARGE.size
    );
    println!();
    println!("{}", Table(rows));
    let [plain, _, _, small, large, limited, read, ..] = rows else {
        return;
    };
    let both = |own: &Row, base| {
        let (json, sse) = (own.ratio(base, Answer::Json), own.ratio(base, Answer::Sse));
        format!("JSON {json}, SSE {sse}")
    };
    println!(
        "gate + attempt to plain: {}; the goal is 1.40",
        both(small, plain)
    );
    println!(
        "{} accounts and keys to {}: {}; the goal is 1.05",
        LARGE.size,
        SMALL.size,
        both(large, small)
    );
    let more = |row: &Row| row.resident_kib.saturating_sub(plain.resident_kib) / 1024;
    println!(
        "memory of the VMs (main thread and one worker) and the shared data: {} MiB, {} MiB",
        more(small),
        more(large)
    );
    let named = |name: &str| rows.iter().find(|row| row.name == name);
    let (Some(unmetered), Some(unjudged)) = (named(WITHOUT_METERING), named(WITHOUT_VERDICTS))
    else {
        return;
    };
    println!();
    println!("| what it is for | JSON, to plain | SSE, to plain |");
    println!("|---|--:|--:|");
    for (what, row, less) in [
        (
            "who asks, which account, its credential, the header allow-list",
            unjudged,
            plain,
        ),
        ("verdicts and failover", unmetered, unjudged),
        ("metering: tokens and records", small, unmetered),
        ("every limit on account and key", limited, small),
        ("the body read to its end", read, small),
    ] {
        let share = |answer| row.share(less, plain, answer);
        println!(
            "| {what} | {} | {} |",
            share(Answer::Json),
            share(Answer::Sse)
        );
    }
}

/// The machine in a line.
fn machine() -> String {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cores = cpuinfo
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown CPU", |(_, model)| model);
    format!("{cores} cores, {model}")
}

/// A core for the gateways and one for everything else; the same where there is only one.
#[derive(Debug, Clone, Copy)]
struct Cores {
    gateways: usize,
    load: usize,
}

// === impl Cores ===

impl Cores {
    fn of_this_machine() -> Result<Self> {
        let allowed = sched_getaffinity(None)?;
        let mut cores = (0..CpuSet::MAX_CPU).filter(|core| allowed.is_set(*core));
        let gateways = cores.next().context("no core to run on")?;
        let load = cores.next().unwrap_or(gateways);
        Ok(Self { gateways, load })
    }

    /// From now on this thread, and what it starts, runs where the gateways do.
    fn use_for_gateways(self) -> Result<()> {
        use_core(self.gateways)
    }

    /// From now on this thread runs where the load does.
    fn use_for_load(self) -> Result<()> {
        use_core(self.load)
    }
}

fn use_core(core: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(core);
    Ok(sched_setaffinity(None, &set)?)
}
