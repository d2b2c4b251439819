//! `arrwdb search`: ranked passages, as a person or a program reads them.

use std::time::Instant;

use reqwest::Method;
use serde::Deserialize;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::args::{SearchArgs, SearchMode};
use super::client::Client;
use super::error::CliError;
use super::library;
use super::passage::{QueryWords, clipped, excerpt, highlighted};
use super::terminal::{Style, Terminal, counted, harmless};

/// Lines of a passage that are shown.
const LINES_MAX: usize = 4;

/// Columns in front of title and passage: the score.
const INDENT: usize = 8;

/// What to search for.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) query: String,
    pub(crate) k: u16,
    pub(crate) threshold: Option<f64>,
    pub(crate) mode: SearchMode,
}

/// The server's answer, as far as it is shown.
#[derive(Debug, Deserialize)]
pub(crate) struct Answer {
    pub(crate) results: Vec<Hit>,
    #[serde(default)]
    pub(crate) query_time_ms: f64,
}

/// One passage found.
#[derive(Debug, Deserialize)]
pub(crate) struct Hit {
    chunk: Passage,
    score: f64,
    #[serde(default)]
    document_title: String,
}

#[derive(Debug, Deserialize)]
struct Passage {
    text: String,
}

/// Runs the command.
pub(crate) async fn run(args: SearchArgs, terminal: &mut Terminal) -> Result<(), CliError> {
    let client = Client::new(&args.server)?;
    let library = library::find(&client, args.library.as_deref()).await?;
    let wanted = Wanted {
        query: args.words.join(" "),
        k: args.k,
        threshold: args.threshold,
        mode: args.mode,
    };
    let began = Instant::now();
    let answer = ask(&client, library.id, &wanted).await?;
    if args.json {
        terminal.line(&answer.to_string())?;
        return Ok(terminal.flush()?);
    }
    let answer = parsed(answer)?;
    show(terminal, &wanted.query, &answer)?;
    let took = began.elapsed().as_secs_f64() * 1e3;
    let found = counted(answer.results.len() as u64, "passage");
    let line = format!(
        "{found} of {:?} in {took:.1} ms ({:.1} ms in the server)",
        library.name, answer.query_time_ms
    );
    terminal.line(&terminal.styled(Style::Faint, &line))?;
    Ok(terminal.flush()?)
}

/// Asks the server.
pub(crate) async fn ask(
    client: &Client,
    library: Uuid,
    wanted: &Wanted,
) -> Result<Value, CliError> {
    let mut body = Map::new();
    body.insert("query".to_owned(), wanted.query.as_str().into());
    body.insert("k".to_owned(), wanted.k.into());
    body.insert("mode".to_owned(), wanted.mode.name().into());
    if let Some(threshold) = wanted.threshold {
        body.insert("distance_threshold".to_owned(), threshold.into());
    }
    let path = format!("v1/libraries/{library}/search");
    client.json(client.request(Method::POST, &path)?.json(&body), "search").await
}

/// The answer as it is shown.
pub(crate) fn parsed(answer: Value) -> Result<Answer, CliError> {
    serde_json::from_value(answer)
        .map_err(|error| CliError::Answer { doing: "search".into(), reason: error.to_string() })
}

/// Prints the passages: score and title on one line, the passage below.
pub(crate) fn show(terminal: &mut Terminal, query: &str, answer: &Answer) -> Result<(), CliError> {
    let words = QueryWords::new(query);
    let columns = terminal.columns() - INDENT;
    if answer.results.is_empty() {
        terminal.line("Nothing found.")?;
    }
    for hit in &answer.results {
        let title = harmless(&hit.document_title).replace('\n', " ");
        let title = terminal.styled(Style::Strong, &clipped(&title, columns));
        terminal.line(&format!("{:>6}  {title}", score(hit.score)))?;
        for line in excerpt(&hit.chunk.text, &words, columns, LINES_MAX) {
            let line = highlighted(&line, &words, terminal.colour());
            terminal.line(&format!("{:INDENT$}{line}", ""))?;
        }
        terminal.line("")?;
    }
    Ok(())
}

/// As the server ranks: `1 - distance`, which is 1 for the same direction, or what keywords come to.
fn score(score: f64) -> String {
    format!("{score:.3}")
}
