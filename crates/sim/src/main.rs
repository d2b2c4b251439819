//! `arrwdb-sim`: runs seeded histories until one fails, then finds a short one that fails too.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use arrwdb_sim::{Broken, History, Outcome, cells, every_sync, run_alone, shorten, table};

const USAGE: &str = "\
usage: arrwdb-sim [options]

Runs the real engine on a simulated disk, clock and embedder: random histories of writes, reads,
restarts, ends of the process and of the power, and disk faults, each from a seed, compared after
every start with what was acknowledged. Stops at the first history that fails, prints its seed, the
shortest history found that fails as well, and the command that repeats it.

  --seed <n>         the first seed (1)
  --histories <n>    how many histories, each of the next seed (1000)
  --operations <n>   steps of a history (120)
  --crashes <n>      go on until so many ends of process or power were survived
  --seconds <n>      go on for so long
  --threads <n>      histories at the same time (all processors)
  --keep <n,n,..>    of the seed's history only these steps, and print them
  --every-sync       instead: one history of --operations writes (1000), the power lost at every
                     sync of it, in five ways
  --stride <n>       with --every-sync: at every n-th sync only (1)
  --table            instead: print the table of faults and places of docs/FAULTS.md
";

/// A history takes fractions of a second; one that takes this long hangs.
const HANGS: Duration = Duration::from_mins(2);
/// Runs spent on finding a shorter history.
const SHORTEN_RUNS_MAX: usize = 3000;

struct Options {
    seed: u64,
    histories: u64,
    operations: Option<u64>,
    crashes: Option<u64>,
    seconds: Option<u64>,
    threads: usize,
    keep: Option<Vec<usize>>,
    every_sync: bool,
    stride: u64,
}

fn main() -> io::Result<ExitCode> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let mut out = io::stdout();
    if words.iter().any(|word| word == "--help" || word == "-h") {
        write!(out, "{USAGE}")?;
        return Ok(ExitCode::SUCCESS);
    }
    if words == ["--table"] {
        return print_table(&mut out);
    }
    let Some(options) = parse(&words) else {
        write!(io::stderr(), "{USAGE}")?;
        return Ok(ExitCode::from(2));
    };
    if options.every_sync {
        return look_at_every_sync(&options, &mut out);
    }
    if let Some(keep) = &options.keep {
        let history = History::new(options.seed, options.operations.unwrap_or(120));
        return repeat(&history.keeping(|number| keep.contains(&number)), &mut out);
    }
    search(&options, &mut out)
}

fn print_table(out: &mut impl Write) -> io::Result<ExitCode> {
    match cells() {
        Ok(cells) => {
            write!(out, "{}", table(&cells))?;
            Ok(ExitCode::SUCCESS)
        }
        Err(what) => {
            writeln!(out, "{what}")?;
            Ok(ExitCode::FAILURE)
        }
    }
}

fn parse(words: &[String]) -> Option<Options> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let mut options = Options {
        seed: 1,
        histories: 1000,
        operations: None,
        crashes: None,
        seconds: None,
        threads,
        keep: None,
        every_sync: false,
        stride: 1,
    };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut number = || words.next()?.parse::<u64>().ok();
        match word.as_str() {
            "--seed" => options.seed = number()?,
            "--histories" => options.histories = number()?,
            "--operations" => options.operations = Some(number()?),
            "--crashes" => options.crashes = Some(number()?),
            "--seconds" => options.seconds = Some(number()?),
            "--threads" => options.threads = usize::try_from(number()?).ok()?.max(1),
            "--every-sync" => options.every_sync = true,
            "--stride" => options.stride = number()?.max(1),
            "--keep" => {
                let numbers = words.next()?.split(',').map(|number| number.parse().ok());
                options.keep = Some(numbers.collect::<Option<_>>()?);
            }
            _ => return None,
        }
    }
    Some(options)
}

fn look_at_every_sync(options: &Options, out: &mut impl Write) -> io::Result<ExitCode> {
    let began = Instant::now();
    let operations = options.operations.unwrap_or(1000);
    match every_sync(options.seed, operations, options.stride) {
        Ok(seen) => {
            writeln!(
                out,
                "{} writes, {} syncs, {} crashes in {:.1} s: everything as acknowledged",
                seen.operations,
                seen.syncs,
                seen.crashes,
                began.elapsed().as_secs_f64()
            )?;
            Ok(ExitCode::SUCCESS)
        }
        Err(what) => {
            writeln!(out, "seed {}: {what}", options.seed)?;
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Runs one history several times, since its threads interleave as they please.
fn repeat(history: &History, out: &mut impl Write) -> io::Result<ExitCode> {
    for (number, step) in &history.steps {
        writeln!(out, "{number:>5}  {step:?}")?;
    }
    for _try in 0..20 {
        if let Err(broken) = run_alone(history) {
            print(history, &broken, out)?;
            return Ok(ExitCode::FAILURE);
        }
    }
    writeln!(out, "passed 20 times")?;
    Ok(ExitCode::SUCCESS)
}

fn print(history: &History, broken: &Broken, out: &mut impl Write) -> io::Result<()> {
    let step = broken.step.map_or("the end".to_owned(), |step| format!("step {step}"));
    writeln!(out, "seed {}, {step}: {}", history.seed, broken.what)?;
    writeln!(out, "again: {}", history.command())
}

/// What the threads tell.
enum Told {
    Passed(Outcome),
    Broken(Box<(History, Broken)>),
}

/// Prints what failed, and the shortest history that fails too.
fn explain((history, broken): (History, Broken), out: &mut impl Write) -> io::Result<ExitCode> {
    print(&history, &broken, out)?;
    let (short, why) = shorten(&history, broken, SHORTEN_RUNS_MAX);
    writeln!(out, "\nshortest found, {} steps:", short.steps.len())?;
    for (number, step) in &short.steps {
        writeln!(out, "{number:>5}  {step:?}")?;
    }
    print(&short, &why, out)?;
    Ok(ExitCode::FAILURE)
}

fn search(options: &Options, out: &mut impl Write) -> io::Result<ExitCode> {
    let began = Instant::now();
    let operations = options.operations.unwrap_or(120);
    let (tell, told) = mpsc::channel();
    let next = Arc::new(AtomicU64::new(options.seed));
    let enough = Arc::new(AtomicBool::new(false));
    let counted = options.crashes.is_none() && options.seconds.is_none();
    let last = if counted { options.seed.saturating_add(options.histories) } else { u64::MAX };
    for _thread in 0..options.threads {
        let (tell, next, enough) = (tell.clone(), next.clone(), enough.clone());
        thread::spawn(move || {
            while !enough.load(Ordering::Relaxed) {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= last {
                    return;
                }
                let history = History::new(seed, operations);
                let said = match run_alone(&history) {
                    Ok(outcome) => Told::Passed(outcome),
                    Err(broken) => Told::Broken(Box::new((history, broken))),
                };
                if tell.send(said).is_err() {
                    return;
                }
            }
        });
    }
    drop(tell);
    let (mut histories, mut total) = (0_u64, Outcome::default());
    loop {
        match told.recv_timeout(HANGS) {
            Ok(Told::Passed(outcome)) => {
                histories += 1;
                total.add(outcome);
            }
            Ok(Told::Broken(failed)) => {
                enough.store(true, Ordering::Relaxed);
                return explain(*failed, out);
            }
            Err(RecvTimeoutError::Timeout) => {
                let seed = next.load(Ordering::Relaxed);
                let threads = options.threads;
                writeln!(out, "a history hangs: one of the {threads} seeds before {seed}")?;
                return Ok(ExitCode::FAILURE);
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
        let crashed = options.crashes.is_some_and(|wanted| total.crashes >= wanted);
        let late = options.seconds.is_some_and(|wanted| began.elapsed().as_secs() >= wanted);
        if crashed || late {
            enough.store(true, Ordering::Relaxed);
        }
    }
    let (seed, seconds) = (options.seed, began.elapsed().as_secs_f64());
    write!(out, "{histories} histories from seed {seed}, ")?;
    sum_up(total, seconds, out)
}

fn sum_up(total: Outcome, seconds: f64, out: &mut impl Write) -> io::Result<ExitCode> {
    let Outcome { steps, writes, crashes, faults, refused } = total;
    writeln!(
        out,
        "{steps} steps, {writes} writes, {crashes} crashes, {faults} faults, {refused} damaged files \
         refused, in {seconds:.1} s: everything as acknowledged"
    )?;
    Ok(ExitCode::SUCCESS)
}
