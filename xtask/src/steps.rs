//! A command is a list of named steps. Every step runs even if an earlier one failed, so that one
//! run shows all there is to mend; the summary at the end has a line and a time for each.

use std::process::Command;
use std::time::{Duration, Instant};

use crate::error::Error;

/// How a step ended.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Outcome {
    Passed,
    Failed(String),
    Skipped(String),
}

#[derive(Debug)]
struct Step {
    name: String,
    outcome: Outcome,
    took: Duration,
}

/// The steps of one run, in the order they ran.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    done: Vec<Step>,
}

impl Steps {
    /// Runs a program to its end with its output passed through; says whether it passed.
    pub(crate) fn run(&mut self, name: &str, command: &mut Command) -> bool {
        let line = command_line(command);
        self.call(name, Some(&line), || {
            let started = command.status();
            let program = command.get_program().to_string_lossy().into_owned();
            let status = started.map_err(|source| Error::Start { program, source })?;
            if status.success() { Ok(()) } else { Err(Error::NotPassed(status.to_string())) }
        })
    }

    /// Runs a function; says whether it passed. `line` is shown beside the name.
    pub(crate) fn call(
        &mut self,
        name: &str,
        line: Option<&str>,
        step: impl FnOnce() -> Result<(), Error>,
    ) -> bool {
        match line {
            Some(line) => println!("\n==> {name}: {line}"),
            None => println!("\n==> {name}"),
        }
        let started = Instant::now();
        let outcome = match step() {
            Ok(()) => Outcome::Passed,
            Err(error) => Outcome::Failed(error.to_string()),
        };
        let took = started.elapsed();
        if let Outcome::Failed(why) = &outcome {
            println!("--- {name} failed after {}: {why}", seconds(took));
        } else {
            println!("--- {name}: {}", seconds(took));
        }
        let passed = outcome == Outcome::Passed;
        self.done.push(Step { name: name.to_owned(), outcome, took });
        passed
    }

    /// Notes a step that had nothing to run on, and why, so that it is seen to be missing.
    pub(crate) fn skip(&mut self, name: &str, why: &str) {
        println!("\n==> {name}: skipped, {why}");
        let outcome = Outcome::Skipped(why.to_owned());
        self.done.push(Step { name: name.to_owned(), outcome, took: Duration::ZERO });
    }

    /// Prints the summary. An error if a step failed.
    pub(crate) fn finish(self) -> Result<(), Error> {
        println!("\n{}", self.summary());
        let failed: Vec<&str> = self
            .done
            .iter()
            .filter(|step| matches!(step.outcome, Outcome::Failed(_)))
            .map(|step| step.name.as_str())
            .collect();
        if failed.is_empty() {
            Ok(())
        } else {
            Err(Error::NotPassed(format!("not passed: {}", failed.join(", "))))
        }
    }

    fn summary(&self) -> String {
        let width = self.done.iter().map(|step| step.name.len()).max().unwrap_or(0).max(5);
        let mut text = String::from("Summary\n");
        let mut total = Duration::ZERO;
        for step in &self.done {
            let verdict = match &step.outcome {
                Outcome::Passed => "passed".to_owned(),
                Outcome::Failed(why) => format!("FAILED  {why}"),
                Outcome::Skipped(why) => format!("skipped {why}"),
            };
            total += step.took;
            text.push_str(&row(&step.name, width, step.took, &verdict));
        }
        text.push_str(&row("total", width, total, ""));
        text
    }
}

fn row(name: &str, width: usize, took: Duration, verdict: &str) -> String {
    let line = format!("  {name:<width$}  {:>8}  {verdict}", seconds(took));
    format!("{}\n", line.trim_end())
}

fn seconds(took: Duration) -> String {
    format!("{:.1} s", took.as_secs_f64())
}

/// The command as one would type it, with the variables that were set for it in front.
fn command_line(command: &Command) -> String {
    let set = command.get_envs().filter_map(|(name, value)| {
        let value = value?.to_string_lossy().into_owned();
        let quote = if value.contains(' ') { "'" } else { "" };
        Some(format!("{}={quote}{value}{quote}", name.to_string_lossy()))
    });
    let program = std::path::Path::new(command.get_program());
    let program = program.file_name().unwrap_or(command.get_program()).to_string_lossy();
    let arguments = command.get_args().map(|argument| argument.to_string_lossy().into_owned());
    set.chain([program.into_owned()]).chain(arguments).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_runs_and_one_failure_fails_the_whole() {
        let mut steps = Steps::default();
        assert!(!steps.call("first", None, || Err(Error::NotPassed("broken".into()))));
        assert!(steps.call("second", None, || Ok(())));
        steps.skip("third", "not there");
        let summary = steps.summary();
        assert!(summary.contains("FAILED  broken"), "{summary}");
        assert!(summary.contains("skipped not there"), "{summary}");
        assert_eq!(steps.finish().unwrap_err().to_string(), "not passed: first");
    }

    #[test]
    fn a_run_without_failures_passes() {
        let mut steps = Steps::default();
        assert!(steps.call("only", None, || Ok(())));
        steps.skip("other", "not there");
        steps.finish().unwrap();
    }

    #[test]
    fn a_program_passes_by_its_exit_status() {
        let mut steps = Steps::default();
        assert!(steps.run("yes", Command::new("true").arg("x")));
        assert!(!steps.run("no", &mut Command::new("false")));
        assert!(!steps.run("absent", &mut Command::new("no-such-program-at-all")));
    }

    #[test]
    fn the_line_shown_is_what_one_would_type() {
        let mut command = Command::new("/usr/bin/cargo");
        command.args(["doc", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings").env_remove("HOME");
        assert_eq!(command_line(&command), "RUSTDOCFLAGS='-D warnings' cargo doc --no-deps");
    }
}
