//! `arrwdb-sim [HISTORIES] [FIRST-SEED] [OPERATIONS]`: runs histories until one fails.

use std::io::{self, Write};
use std::process::ExitCode;

#[tokio::main(flavor = "current_thread")]
async fn main() -> io::Result<ExitCode> {
    let mut numbers = std::env::args().skip(1).map(|word| word.parse::<u64>());
    let mut number = |default| numbers.next().unwrap_or(Ok(default));
    let (Ok(histories), Ok(first), Ok(operations)) = (number(1000), number(1), number(200)) else {
        writeln!(io::stderr(), "usage: arrwdb-sim [HISTORIES] [FIRST-SEED] [OPERATIONS]")?;
        return Ok(ExitCode::from(2));
    };
    let mut out = io::stdout();
    let mut total = arrwdb_sim::Outcome::default();
    for seed in first..first.saturating_add(histories) {
        match arrwdb_sim::run(seed, operations).await {
            Ok(outcome) => {
                total.operations += outcome.operations;
                total.crashes += outcome.crashes;
            }
            Err(failure) => {
                writeln!(out, "seed {seed}: {failure:?}")?;
                writeln!(out, "again: cargo run -p arrwdb-sim -- 1 {seed} {operations}")?;
                return Ok(ExitCode::FAILURE);
            }
        }
    }
    writeln!(
        out,
        "{histories} histories, {} operations, {} power failures: all as acknowledged",
        total.operations, total.crashes
    )?;
    Ok(ExitCode::SUCCESS)
}
