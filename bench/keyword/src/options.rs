//! The command line.

use std::path::PathBuf;

use crate::Outcome;

const USAGE: &str = "tantivy-side --passages FILE --queries FILE --folder FOLDER [--rounds 5] \
                     [--json FILE]; the files are JSON lines with `text`, and passages may have \
                     a `title`";

/// What is to be measured.
#[derive(Debug)]
pub(crate) struct Options {
    /// JSON lines of passages.
    pub(crate) passages: PathBuf,
    /// JSON lines of queries.
    pub(crate) queries: PathBuf,
    /// Where the indexes go; folders of their names in it are made anew.
    pub(crate) folder: PathBuf,
    /// Times that every query is measured.
    pub(crate) rounds: usize,
    /// Where the figures go, beside being printed.
    pub(crate) json: Option<PathBuf>,
}

impl Options {
    /// Reads the arguments after the program's name.
    pub(crate) fn parse(mut arguments: impl Iterator<Item = String>) -> Outcome<Self> {
        let (mut passages, mut queries, mut folder, mut json) = (None, None, None, None);
        let mut rounds = 5;
        while let Some(name) = arguments.next() {
            let value = arguments.next().ok_or_else(|| format!("{name} has no value: {USAGE}"))?;
            match name.as_str() {
                "--passages" => passages = Some(PathBuf::from(value)),
                "--queries" => queries = Some(PathBuf::from(value)),
                "--folder" => folder = Some(PathBuf::from(value)),
                "--json" => json = Some(PathBuf::from(value)),
                "--rounds" => rounds = value.parse()?,
                _ => return Err(format!("{name} is not known: {USAGE}").into()),
            }
        }
        match (passages, queries, folder) {
            (Some(passages), Some(queries), Some(folder)) if rounds > 0 => {
                Ok(Self { passages, queries, folder, rounds, json })
            }
            _ => Err(USAGE.into()),
        }
    }
}
