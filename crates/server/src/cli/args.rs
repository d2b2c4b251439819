//! The arguments of every command, as clap reads them.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// A real-time vector database in one binary.
#[derive(Debug, Parser)]
#[command(name = "arrwdb", version, propagate_version = true)]
pub struct Arguments {
    /// What to do; without a command the server is started.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start the server (the default).
    Serve(ServeArgs),
    /// Start a server on an empty directory, import documentation found on this machine, search it.
    Demo(DemoArgs),
    /// Import files and folders: Markdown, text, HTML, reStructuredText, NDJSON and CSV.
    Import(ImportArgs),
    /// Search a library.
    Search(SearchArgs),
    /// Write a library's documents as NDJSON.
    Export(ExportArgs),
    /// Say where the local embedding model is, fetch it or verify it.
    Model(ModelArgs),
    /// Verify every checksum and every invariant of a data directory that no server has open.
    Check(CheckArgs),
    /// Back up a data directory, beside a running server or without one; sends only what is new.
    Backup(BackupArgs),
    /// Make a data directory out of a backup, as it was at any sequence number or time.
    Restore(RestoreArgs),
}

/// Arguments of `arrwdb serve`: none of its own. Its flags are the settings, which `config` adds
/// from its table.
#[derive(Copy, Clone, Debug, Default, Args)]
pub struct ServeArgs {}

/// How to reach a running server.
#[derive(Clone, Debug, Args)]
pub struct ServerArgs {
    /// The server's URL.
    #[arg(
        long,
        env = "ARRWDB_SERVER",
        value_name = "URL",
        default_value = "http://127.0.0.1:8000"
    )]
    pub server: String,
    /// The API key, if the server asks for one.
    #[arg(long, env = "ARRWDB_API_KEY", hide_env_values = true, value_name = "KEY")]
    pub api_key: Option<String>,
}

/// Arguments of `arrwdb demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Directory for the demo's data; must be empty or absent [default: a new temporary one].
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Port to listen on; the next free one is taken if it is in use.
    #[arg(long, default_value_t = 8000)]
    pub port: u16,
    /// About how many passages to import.
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub passages: u32,
    /// Folder of documentation to import instead of what cargo's registry folder holds.
    #[arg(long, value_name = "DIR")]
    pub docs: Option<PathBuf>,
    /// Stop after the searches instead of leaving the server running.
    #[arg(long)]
    pub once: bool,
}

/// Arguments of `arrwdb import`.
#[derive(Debug, Args)]
pub struct ImportArgs {
    /// Files and folders. A folder is walked; hidden and git-ignored files are left out.
    #[arg(required = true, value_name = "PATH")]
    pub paths: Vec<PathBuf>,
    /// Library to import into, by name or id; a name that does not exist yet is created.
    #[arg(long, short, value_name = "NAME|ID", default_value = "default")]
    pub library: String,
    /// Index type of a library that has to be created.
    #[arg(
        long = "index-type",
        visible_alias = "index",
        value_name = "TYPE",
        default_value = "brute_force"
    )]
    pub index_type: String,
    /// Metric of a library that has to be created: cosine, dot or l2.
    #[arg(long, value_name = "METRIC", default_value = "cosine")]
    pub metric: String,
    /// Language of a library that has to be created, by its code: en, de, fr and others, or none.
    #[arg(long, value_name = "CODE", default_value = "en")]
    pub language: String,
    /// Column or field that holds a row's title, where it has an unusual name.
    #[arg(long, value_name = "NAME")]
    pub title_field: Option<String>,
    /// Column or field that holds a row's text, where it has an unusual name.
    #[arg(long, value_name = "NAME")]
    pub text_field: Option<String>,
    /// Streams sent to the server at the same time.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=32))]
    pub streams: u8,
    /// Delete documents that were imported from these paths earlier and are gone from them now.
    #[arg(long)]
    pub prune: bool,
    /// Send everything, also what has not changed.
    #[arg(long)]
    pub force: bool,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would print the comment as the help of every command")]
    pub server: ServerArgs,
}

/// What a search finds passages by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SearchMode {
    /// By what they mean.
    Vector,
    /// By the words that they have; "a phrase", +must, begin*, and behind `--` -mustnot.
    Keyword,
    /// By both.
    Hybrid,
}

impl SearchMode {
    /// As the server calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Vector => "vector",
            Self::Keyword => "keyword",
            Self::Hybrid => "hybrid",
        }
    }
}

/// Arguments of `arrwdb search`.
#[derive(Debug, Args)]
pub struct SearchArgs {
    /// What to look for; several words need no quotes.
    #[arg(required = true, value_name = "WORDS")]
    pub words: Vec<String>,
    /// Library to search, by name or id [default: the only one, or the one named "default"].
    #[arg(long, short, value_name = "NAME|ID")]
    pub library: Option<String>,
    /// How many passages to show.
    #[arg(long, short, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub k: u16,
    /// What passages are found by: what they mean, the words that they have, or both.
    #[arg(long, short, value_enum, default_value_t = SearchMode::Vector)]
    pub mode: SearchMode,
    /// Largest distance to show: 0 (same) to 2 (opposite) for cosine, any number for dot, from 0 on
    /// for l2.
    #[arg(long, value_name = "DISTANCE", allow_negative_numbers = true, value_parser = distance)]
    pub threshold: Option<f64>,
    /// Print the server's answer as JSON.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would print the comment as the help of every command")]
    pub server: ServerArgs,
}

/// Arguments of `arrwdb export`.
#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Library to export, by name or id [default: the only one, or the one named "default"].
    #[arg(long, short, value_name = "NAME|ID")]
    pub library: Option<String>,
    /// File to write [default: standard output].
    #[arg(long, short, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Leave the vectors out: smaller, but an import embeds the texts again.
    #[arg(long)]
    pub no_embeddings: bool,
    #[command(flatten)]
    #[expect(missing_docs, reason = "clap would print the comment as the help of every command")]
    pub server: ServerArgs,
}

/// Arguments of `arrwdb model`.
#[derive(Debug, Args)]
pub struct ModelArgs {
    /// What to do with the model's files.
    #[arg(value_enum, default_value_t = ModelAction::Path)]
    pub action: ModelAction,
    /// Folder or web folder with the files, tried first by `fetch`.
    #[arg(long, value_name = "DIR|URL")]
    pub from: Option<String>,
}

/// Arguments of `arrwdb check`.
#[derive(Debug, Args)]
#[command(
    after_help = "Exit codes: 0 sound, 1 damaged (or a repair that was only shown), 2 could \
                        not be checked."
)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of its own")]
pub struct CheckArgs {
    /// The data directory [default: the one that `arrwdb serve` would use].
    #[arg(value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Repair what needs no guessing: cut the torn end of the log, remove derived files and
    /// left-overs. Shows it first, and asks.
    #[arg(long)]
    pub repair: bool,
    /// Do not ask.
    #[arg(long, requires = "repair")]
    pub yes: bool,
    /// Where records of the log are damaged, save the whole ones and give up the others. The
    /// damaged files are set aside.
    #[arg(long, requires = "repair")]
    pub accept_loss: bool,
    /// Print the report as JSON; asks nothing.
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `arrwdb backup`.
#[derive(Debug, Args)]
pub struct BackupArgs {
    /// A folder, or `s3://BUCKET/PREFIX` with the variables that AWS tools know
    /// (`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_REGION`; `AWS_ENDPOINT_URL` for other
    /// stores).
    pub target: String,
    /// The data directory [default: the server's, `VECTOR_DB_DATA_DIR`].
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Afterwards restore the backup to a temporary directory, open it and compare every library.
    #[arg(long)]
    pub verify: bool,
    /// Afterwards keep this many restore points and delete what only older ones need.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub keep: Option<u32>,
    /// Only list the restore points.
    #[arg(long, conflicts_with_all = ["data_dir", "verify", "keep"])]
    pub list: bool,
}

/// Arguments of `arrwdb restore`.
#[derive(Debug, Args)]
pub struct RestoreArgs {
    /// A folder or `s3://BUCKET/PREFIX`, as for `arrwdb backup`.
    pub target: String,
    /// The data directory to make; must be empty or absent.
    pub dir: PathBuf,
    /// Restore the state after this sequence number [default: the newest restore point].
    #[arg(long, value_name = "SEQ", group = "state")]
    pub to_seq: Option<u64>,
    /// Restore the state at this time, such as 2026-03-01T12:00:00Z.
    #[arg(long, value_name = "TIME", group = "state", value_parser = time)]
    pub to_time: Option<jiff::Timestamp>,
    /// Restore the restore point of this sequence number.
    #[arg(long, value_name = "SEQ", group = "state")]
    pub point: Option<u64>,
}

/// What `arrwdb model` does.
#[derive(Copy, Clone, Debug, PartialEq, Eq, ValueEnum)]
pub enum ModelAction {
    /// Say where the files are and whether they are complete.
    Path,
    /// Fetch what is missing.
    Fetch,
    /// Compare every file with its published SHA-256.
    Verify,
}

fn time(text: &str) -> Result<jiff::Timestamp, String> {
    text.parse::<jiff::Timestamp>().map_err(|_error| {
        "a date and time with a time zone is needed, such as 2026-03-01T12:00:00Z".to_owned()
    })
}

fn distance(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value.is_finite() => Ok(value),
        Ok(_) | Err(_) => Err("a number is needed".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn no_command_means_serve() {
        assert!(Arguments::parse_from(["arrwdb"]).command.is_none());
    }

    #[test]
    fn one_state_is_restored_and_a_time_has_a_zone() {
        let given = |more: &[&str]| {
            Arguments::try_parse_from([&["arrwdb", "restore", "b", "d"], more].concat()).is_ok()
        };
        assert!(given(&[]) && given(&["--to-seq", "5"]));
        assert!(given(&["--to-time", "2026-03-01T12:00:00+01:00"]));
        assert!(!given(&["--to-seq", "5", "--point", "5"]));
        assert!(!given(&["--to-time", "2026-03-01T12:00:00"]));
        assert!(Arguments::try_parse_from(["arrwdb", "backup", "b", "--keep", "0"]).is_err());
    }

    #[test]
    fn a_threshold_that_is_no_number_is_refused() {
        let given = |threshold| {
            Arguments::try_parse_from(["arrwdb", "search", "x", "--threshold", threshold]).is_ok()
        };
        for bad in ["NaN", "inf", "-inf", "1e999", "near", ""] {
            assert!(!given(bad), "{bad}");
        }
        // Which of these a distance can be is the server's to say: it knows the library's metric.
        for good in ["-0.1", "0", "2.1"] {
            assert!(given(good), "{good}");
        }
    }
}
