//! `arrwdb`: reads the command line and the environment, and hands over.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use arrwdb_server::cli::{self, Arguments, Command, DemoServer, ModelSite, Surroundings, Terminal};
use arrwdb_server::config::{self, Config, Sources, Values};
use arrwdb_server::{logging, model, serve};
use clap::{Arg, ArgAction, ArgMatches, CommandFactory, FromArgMatches};

fn main() -> ExitCode {
    let matches = command_line().get_matches_from(with_serve(std::env::args_os().collect()));
    let arguments = match Arguments::from_arg_matches(&matches) {
        Ok(arguments) => arguments,
        Err(error) => error.exit(),
    };
    let failure = match &arguments.command {
        Some(Command::Check(_)) => ExitCode::from(cli::COULD_NOT_CHECK),
        Some(_) | None => ExitCode::FAILURE,
    };
    let outcome = match arguments.command {
        None => start(&sources(&matches), PrintConfig::No),
        Some(Command::Serve(_)) => match matches.subcommand_matches("serve") {
            Some(matches) => start(&sources(matches), print_config(matches)),
            None => start(&sources(&matches), PrintConfig::No),
        },
        Some(command) => run_command(command, &sources(&matches)),
    };
    match outcome {
        Ok(code) => code,
        Err(text) => {
            complain(&text);
            failure
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PrintConfig {
    Yes,
    No,
}

/// The arguments with `serve` put before flags that follow no command: `arrwdb --port 8001` starts
/// the server, as `arrwdb` does.
fn with_serve(mut arguments: Vec<OsString>) -> Vec<OsString> {
    const OWN: [&str; 4] = ["--help", "-h", "--version", "-V"];
    let first = arguments.get(1).and_then(|argument| argument.to_str());
    if first.is_some_and(|first| first.starts_with("--") && first != "--" && !OWN.contains(&first))
    {
        arguments.insert(1, "serve".into());
    }
    arguments
}

/// The commands, with a flag for every setting on `serve`.
fn command_line() -> clap::Command {
    Arguments::command().mut_subcommand("serve", |serve| {
        let file = Arg::new("config")
            .long("config")
            .value_name("FILE")
            .value_parser(clap::value_parser!(PathBuf))
            .help("TOML file with settings [default: ./arrwdb.toml if it exists]");
        let print = Arg::new("print-config")
            .long("print-config")
            .action(ArgAction::SetTrue)
            .help("Print every setting and where it comes from, and exit");
        config::add_flags(serve.arg(file).arg(print))
    })
}

fn print_config(matches: &ArgMatches) -> PrintConfig {
    if matches.get_flag("print-config") { PrintConfig::Yes } else { PrintConfig::No }
}

/// Everything the settings are read from. `serve`'s own three flags are the same settings.
fn sources(matches: &ArgMatches) -> Sources {
    let mut flags = config::read_flags(matches);
    let text = |id: &str| matches.try_get_one::<String>(id).ok().flatten().cloned();
    let port = matches.try_get_one::<u16>("port").ok().flatten();
    let dir = matches.try_get_one::<PathBuf>("data_dir").ok().flatten();
    flags.extend(text("host").map(|host| ("HOST", host)));
    flags.extend(port.map(|port| ("PORT", port.to_string())));
    flags.extend(dir.map(|dir| ("VECTOR_DB_DATA_DIR", dir.display().to_string())));
    let toml = matches.try_get_one::<PathBuf>("config").ok().flatten().cloned();
    Sources {
        toml,
        working_dir: std::env::current_dir().ok(),
        // Names and values that are not Unicode are none of ours.
        environment: std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect::<BTreeMap<_, _>>(),
        flags,
    }
}

fn start(sources: &Sources, print: PrintConfig) -> Result<ExitCode, String> {
    let values = Values::read(sources).map_err(|errors| errors.to_string())?;
    if print == PrintConfig::Yes {
        std::io::stdout().write_all(values.print().as_bytes()).map_err(|e| e.to_string())?;
    }
    let config = Config::load(sources).map_err(|errors| errors.to_string())?;
    if print == PrintConfig::Yes {
        return Ok(ExitCode::SUCCESS);
    }
    logging::start(config.log).map_err(|error| error.to_string())?;
    runtime(config.worker_threads)?
        .block_on(serve::run(config))
        .map(|()| ExitCode::SUCCESS)
        .map_err(|error| error.to_string())
}

fn runtime(threads: Option<usize>) -> Result<tokio::runtime::Runtime, String> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if let Some(threads) = threads {
        builder.worker_threads(threads);
    }
    builder.enable_all().build().map_err(|error| format!("cannot start threads: {error}"))
}

fn run_command(command: Command, sources: &Sources) -> Result<ExitCode, String> {
    let variable = |name: &str| {
        sources.environment.get(name).filter(|value| !value.is_empty()).map(PathBuf::from)
    };
    let config = Config::load(sources).map_err(|errors| errors.to_string())?;
    let files = &config.embedding.files;
    let surroundings = Surroundings {
        terminal: Terminal::of_process(variable("NO_COLOR").is_some()),
        model: ModelSite {
            // Without a home there is still the directory the command was started in.
            dir: files.dir.clone().unwrap_or_else(|| PathBuf::from("model")),
            sources: model::sources(files),
        },
        data_dir: config.storage.data_dir.clone(),
        model_is_used: model::local_is_default(&config.embedding),
        cargo_home: variable("CARGO_HOME").or_else(|| Some(variable("HOME")?.join(".cargo"))),
        working_dir: sources.working_dir.clone().unwrap_or_default(),
        temp_dir: std::env::temp_dir(),
        aws: sources.aws(),
    };
    let server = demo_server(sources.clone());
    let outcome = runtime(None)?.block_on(cli::run(command, surroundings, server));
    match outcome {
        Ok(code) => Ok(code),
        Err(error) if error.is_closed_pipe() => Ok(ExitCode::SUCCESS),
        Err(error) => Err(error.to_string()),
    }
}

/// A server inside `arrwdb demo`: the user's settings, on the demo's socket and directory.
fn demo_server(sources: Sources) -> DemoServer {
    Box::new(move |site| {
        Box::pin(async move {
            let mut config = Config::load(&sources).map_err(|errors| errors.to_string())?;
            config.storage.data_dir = site.data_dir;
            let stop = async move {
                // A sender that is gone stops the server as well.
                site.stop.await.unwrap_or(());
            };
            site.listener.set_nonblocking(true).map_err(|error| error.to_string())?;
            serve::serve_on(config, site.listener, stop).await.map_err(|error| error.to_string())
        })
    })
}

fn complain(text: &str) {
    // Standard error may be closed; there is nobody else to tell.
    std::io::stderr().write_all(format!("arrwdb: {text}\n").as_bytes()).ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(arguments: &[&str]) -> Vec<OsString> {
        with_serve(arguments.iter().map(OsString::from).collect())
    }

    #[test]
    fn flags_without_a_command_are_those_of_serve() {
        let matches = command_line().get_matches_from(given(&["arrwdb", "--port", "8001"]));
        let serve = matches.subcommand_matches("serve").unwrap();
        assert_eq!(sources(serve).flags.get("PORT").map(String::as_str), Some("8001"));
        for same in [&["arrwdb"][..], &["arrwdb", "--version"], &["arrwdb", "demo", "--once"]] {
            assert_eq!(given(same), same);
        }
    }
}
