//! The project's own tools: one command for the tests, one for every check, one for the style.
//!
//! `cargo xtask` without a command says what there is. The exit status is 0 if everything passed, 1
//! if something did not, 2 if the command line makes no sense.
#![expect(clippy::print_stdout, reason = "a command line tool answers on standard output")]

mod clients;
mod commands;
mod error;
mod fuzz;
mod serving;
mod steps;
mod tidy;
mod workspace;

use std::process::ExitCode;

use commands::{KILL9_ROUNDS, KILL9_TESTS, Runner, kill9};
use error::Error;
use workspace::Workspace;

const USAGE: &str = "\
usage: cargo xtask <command>

  test [--install]       every test: build, fetch the model, run, then the doc tests;
                         --install brings cargo-nextest first if it is missing
  ci                     every check: format, tidy, deny, clippy, doc, test
  tidy                   the style rules that no other tool knows, and the rules of deny.toml
  deny                   cargo-deny without its advisories, where it is installed
  goldens                write the golden files anew and show what changed
  kill9 [--rounds <n>]   kill and restart the server under load, 20 rounds unless told: what is
                         stored, then what those who follow the change feed see, then what becomes
                         of background jobs
  kill9-feed [--rounds <n>]
                         only the second of these
  kill9-jobs [--rounds <n>]
                         only the third
  schemathesis [--examples <n>]
                         ask the server what its OpenAPI document makes one ask, right and wrong;
                         50 requests for each operation unless told; brings its own Python packages
  clients                talk to the server as clients do: WebSocket and events from Python, curl, and
                         from Node where it is; brings its own Python packages
  browser                load the documentation and follow the events and sockets in Chromium, over
                         restarts; needs Chromium (or CHROMIUM=<path>), Node and npm
  sim [<options>]        10,000 crashes of the simulated engine; other options as of arrwdb-sim --help
  bench [<name> [...]]   build and run a bench with the given arguments; without a name, list them
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Error::Usage(what)) => {
            eprintln!("error: {what}\n\n{USAGE}");
            ExitCode::from(2)
        }
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> Result<(), Error> {
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    if let ["help" | "--help" | "-h"] = words[..] {
        println!("{USAGE}");
        return Ok(());
    }
    let workspace = Workspace::locate()?;
    match words[..] {
        ["test"] => commands::test(&workspace, Runner::AsInstalled),
        ["test", "--install"] => commands::test(&workspace, Runner::Install),
        ["ci"] => commands::ci(&workspace),
        ["tidy"] => commands::tidy(&workspace),
        ["deny"] => commands::deny(&workspace),
        ["goldens"] => commands::goldens(&workspace),
        ["kill9"] => kill9(&workspace, &KILL9_TESTS, KILL9_ROUNDS),
        ["kill9", "--rounds", count] => {
            kill9(&workspace, &KILL9_TESTS, positive("--rounds", count)?)
        }
        ["kill9-feed"] => kill9(&workspace, &KILL9_TESTS[1..2], KILL9_ROUNDS),
        ["kill9-feed", "--rounds", count] => {
            kill9(&workspace, &KILL9_TESTS[1..2], positive("--rounds", count)?)
        }
        ["kill9-jobs"] => kill9(&workspace, &KILL9_TESTS[2..], KILL9_ROUNDS),
        ["kill9-jobs", "--rounds", count] => {
            kill9(&workspace, &KILL9_TESTS[2..], positive("--rounds", count)?)
        }
        ["schemathesis"] => fuzz::schemathesis(&workspace, fuzz::EXAMPLES),
        ["schemathesis", "--examples", count] => {
            fuzz::schemathesis(&workspace, positive("--examples", count)?)
        }
        ["clients"] => clients::clients(&workspace),
        ["browser"] => clients::browser(&workspace),
        ["sim", ..] => commands::sim(&workspace, &arguments[1..]),
        ["bench"] => commands::bench(&workspace, None, &[]),
        ["bench", name, ..] => commands::bench(&workspace, Some(name), &arguments[2..]),
        [] => Err(Error::Usage("a command is needed".to_owned())),
        _ => Err(Error::Usage(format!("unknown: {}", words.join(" ")))),
    }
}

fn positive(flag: &str, count: &str) -> Result<u32, Error> {
    match count.parse() {
        Ok(count) if count > 0 => Ok(count),
        _ => Err(Error::Usage(format!("{flag} takes a number above 0, not `{count}`"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_line_that_makes_no_sense_is_a_usage_error() {
        for line in [
            "",
            "tests",
            "test --fast",
            "kill9 --rounds",
            "kill9 --rounds 0",
            "kill9-feed --rounds",
            "kill9-jobs --rounds x",
            "schemathesis --examples x",
            "browser now",
            "ci now",
        ] {
            let arguments: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            assert!(matches!(run(&arguments), Err(Error::Usage(_))), "{line}");
        }
    }
}
