//! The commands, each a list of steps.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use serde::Deserialize;

use crate::error::Error;
use crate::steps::Steps;
use crate::tidy;
use crate::workspace::Workspace;

/// The package whose binaries are the benches.
const BENCH: &str = "arrwdb-bench";

/// The package of the server and its binary.
const SERVER: (&str, &str) = ("arrwdb-server", "arrwdb");

/// The package of the simulator.
const SIM: &str = "arrwdb-sim";

/// Crashes of `sim` where nothing is asked for.
const SIM_CRASHES: &str = "10000";

/// The tests that kill the server: what is stored, what is seen by those who follow, and what
/// becomes of jobs.
pub(crate) const KILL9_TESTS: [&str; 3] = ["kill9", "kill9_feed", "kill9_jobs"];

/// Rounds of `kill9` where none are asked for.
pub(crate) const KILL9_ROUNDS: u32 = 20;

/// How the kill tests learn how many rounds to run.
const KILL9_ROUNDS_VARIABLE: &str = "ARRWDB_KILL9_ROUNDS";

/// Whether a missing test runner is compiled and installed first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Runner {
    /// cargo-nextest where it is installed, else cargo's own.
    AsInstalled,
    /// cargo-nextest; `cargo install` brings it, which takes some minutes.
    Install,
}

/// Every test of the workspace.
pub(crate) fn test(workspace: &Workspace, runner: Runner) -> Result<(), Error> {
    let mut steps = Steps::default();
    test_steps(workspace, runner, &mut steps);
    steps.finish()
}

/// Every check: cheap ones first, all of them whatever fails.
pub(crate) fn ci(workspace: &Workspace) -> Result<(), Error> {
    let mut steps = Steps::default();
    steps.run("format", &mut workspace.cargo(&["fmt", "--all", "--check"]));
    steps.call("tidy", None, || tidy::run(workspace));
    deny_steps(workspace, &mut steps);
    let mut clippy = workspace.cargo(&["clippy", "--workspace", "--all-targets", "--locked"]);
    steps.run("clippy", clippy.args(["--", "-D", "warnings"]));
    // Private items too: the reader of these pages is who works on the code.
    let mut doc = workspace.cargo(&["doc", "--workspace", "--no-deps", "--document-private-items"]);
    steps.run("doc", doc.arg("--locked").env("RUSTDOCFLAGS", "-D warnings"));
    test_steps(workspace, Runner::AsInstalled, &mut steps);
    steps.finish()
}

/// The checks of cargo-deny that need nothing but the package registry.
pub(crate) fn deny(workspace: &Workspace) -> Result<(), Error> {
    let mut steps = Steps::default();
    deny_steps(workspace, &mut steps);
    steps.finish()
}

/// The style rules alone.
pub(crate) fn tidy(workspace: &Workspace) -> Result<(), Error> {
    let mut steps = Steps::default();
    steps.call("tidy", None, || tidy::run(workspace));
    steps.finish()
}

/// Writes every golden file anew, then shows which of them changed.
pub(crate) fn goldens(workspace: &Workspace) -> Result<(), Error> {
    let mut steps = Steps::default();
    let mut command = workspace.cargo(&["test", "--workspace", "--tests", "--", "golden"]);
    steps.run("goldens", command.env("UPDATE", "1"));
    let mut status = Command::new("git");
    status.current_dir(workspace.root()).args(["status", "--short"]);
    steps.run("changed files", &mut status);
    steps.finish()
}

/// Kills and restarts the real binary under load, many times over, in each of these tests.
pub(crate) fn kill9(workspace: &Workspace, tests: &[&str], rounds: u32) -> Result<(), Error> {
    let mut steps = Steps::default();
    let rounds = rounds.to_string();
    for test in tests {
        let mut command = workspace.cargo(&["test", "--package", SERVER.0, "--test", test]);
        command.args(["--", "--nocapture"]).env(KILL9_ROUNDS_VARIABLE, &rounds);
        steps.run(test, &mut command);
    }
    steps.finish()
}

/// Runs the simulator in a release build.
pub(crate) fn sim(workspace: &Workspace, options: &[String]) -> Result<(), Error> {
    let mut steps = Steps::default();
    let mut command = workspace.cargo(&["run", "--release", "--locked", "--package", SIM, "--"]);
    if options.is_empty() {
        command.args(["--crashes", SIM_CRASHES]);
    }
    steps.run("sim", command.args(options));
    steps.finish()
}

/// Builds and runs one bench; without a name, lists them.
pub(crate) fn bench(
    workspace: &Workspace,
    name: Option<&str>,
    rest: &[String],
) -> Result<(), Error> {
    let benches = bench_names(workspace)?;
    let listed = benches.join("\n  ");
    let Some(name) = name else {
        println!("benches:\n  {listed}");
        return Ok(());
    };
    if !benches.iter().any(|bench| bench == name) {
        return Err(Error::Absent(format!("no bench `{name}`; there are:\n  {listed}")));
    }
    let mut steps = Steps::default();
    let arguments = ["build", "--release", "--locked", "--package", BENCH, "--bin", name];
    // The server in its own release build: benches that talk to it start that.
    let server = ["build", "--release", "--locked", "--package", SERVER.0, "--bin", SERVER.1];
    let built = steps.run("build server", &mut workspace.cargo(&server))
        && steps.run("build bench", &mut workspace.cargo(&arguments));
    if built {
        let mut run =
            workspace.cargo(&["run", "--release", "--quiet", "--package", BENCH, "--bin"]);
        steps.run(name, run.arg(name).arg("--").args(rest));
    }
    steps.finish()
}

fn bench_names(workspace: &Workspace) -> Result<Vec<String>, Error> {
    let metadata = workspace.metadata(&["--no-deps"])?;
    let targets = metadata.packages.iter().filter(|it| it.name == BENCH).flat_map(|it| &it.targets);
    let mut names: Vec<String> = targets
        .filter(|target| target.kind.iter().any(|kind| kind == "bin"))
        .map(|target| target.name.clone())
        .collect();
    names.sort();
    Ok(names)
}

fn deny_steps(workspace: &Workspace, steps: &mut Steps) {
    if workspace.has_subcommand("deny") {
        // Advisories are left out: their database is on a host that many machines cannot reach.
        let arguments =
            ["deny", "check", "--hide-inclusion-graph", "--allow", "unused-wrapper", "bans"];
        steps.run("deny", workspace.cargo(&arguments).args(["licenses", "sources"]));
    } else {
        let why = "cargo-deny is not installed (cargo install --locked cargo-deny); \
                   tidy checks the direction, licences and sources of deny.toml itself";
        steps.skip("deny", why);
    }
}

fn test_steps(workspace: &Workspace, runner: Runner, steps: &mut Steps) {
    let mut nextest = workspace.has_subcommand("nextest");
    if !nextest && runner == Runner::Install {
        let arguments = ["install", "--locked", "cargo-nextest"];
        nextest = steps.run("install cargo-nextest", &mut workspace.cargo(&arguments));
    }
    if !nextest {
        println!("\ncargo-nextest is not installed; cargo's own runner takes its place.");
        println!("`cargo xtask test --install` installs it.");
    }
    let mut binary = None;
    let built =
        steps.call("build tests", Some("cargo test --workspace --tests --bins --no-run"), || {
            binary = Some(build_tests(workspace)?);
            Ok(())
        });
    let Some(binary) = binary.filter(|_| built) else { return };
    steps.run("model", Command::new(binary).args(["model", "fetch"]).current_dir(workspace.root()));
    let tests: &[&str] = if nextest {
        &["nextest", "run", "--workspace", "--tests", "--bins", "--locked", "--no-tests", "pass"]
    } else {
        &["test", "--workspace", "--tests", "--bins", "--locked", "--no-fail-fast"]
    };
    steps.run("tests", &mut workspace.cargo(tests));
    let doctests = ["test", "--workspace", "--doc", "--locked", "--no-fail-fast"];
    steps.run("doc tests", &mut workspace.cargo(&doctests));
}

/// A line of cargo's `--message-format json`.
#[derive(Debug, Deserialize)]
struct Message {
    target: Option<MessageTarget>,
    profile: Option<MessageProfile>,
    executable: Option<PathBuf>,
}

#[derive(Debug, Deserialize)]
struct MessageTarget {
    name: String,
}

#[derive(Debug, Deserialize)]
struct MessageProfile {
    test: bool,
}

/// Builds every test and binary as the test runner will want them; the path of the server's binary.
fn build_tests(workspace: &Workspace) -> Result<PathBuf, Error> {
    let mut command = workspace.cargo(&["test", "--workspace", "--tests", "--bins", "--no-run"]);
    command.args(["--locked", "--message-format", "json-render-diagnostics"]);
    let program = "cargo test --no-run".to_owned();
    let built = match command.stderr(Stdio::inherit()).output() {
        Ok(built) => built,
        Err(source) => return Err(Error::Start { program, source }),
    };
    if !built.status.success() {
        return Err(Error::NotPassed(built.status.to_string()));
    }
    executable(&String::from_utf8_lossy(&built.stdout), SERVER.1)?
        .ok_or_else(|| Error::Absent(format!("the build made no binary `{}`", SERVER.1)))
}

/// Where cargo says it put the binary (not the tests of it) of that name.
fn executable(messages: &str, name: &str) -> Result<Option<PathBuf>, Error> {
    for line in messages.lines().filter(|line| line.starts_with('{')) {
        let message: Message = serde_json::from_str(line).map_err(|source| {
            let program = "cargo test --no-run".to_owned();
            Error::Json { program, source }
        })?;
        let named = message.target.is_some_and(|target| target.name == name);
        let test = message.profile.is_some_and(|profile| profile.test);
        if named && !test && message.executable.is_some() {
            return Ok(message.executable);
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_binary_is_told_from_its_tests() {
        let messages = concat!(
            "{\"reason\":\"build-script-executed\"}\n",
            "{\"target\":{\"name\":\"arrwdb\"},\"profile\":{\"test\":true},\"executable\":\"/t/a\"}\n",
            "{\"target\":{\"name\":\"other\"},\"profile\":{\"test\":false},\"executable\":\"/t/b\"}\n",
            "{\"target\":{\"name\":\"arrwdb\"},\"profile\":{\"test\":false},\"executable\":\"/t/c\"}\n",
        );
        assert_eq!(executable(messages, "arrwdb").unwrap(), Some(PathBuf::from("/t/c")));
        assert_eq!(executable(messages, "absent").unwrap(), None);
        assert!(executable("{broken", "arrwdb").is_err());
    }
}
