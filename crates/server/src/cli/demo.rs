//! `arrwdb demo`: from nothing to answers in about a minute.
//!
//! A server is started in this process on an empty directory; everything after that goes through
//! its HTTP API as any other client's requests do.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::Value;
use tokio::sync::oneshot;

use super::Surroundings;
use super::args::{DemoArgs, SearchMode, ServerArgs};
use super::client::Client;
use super::demo_corpus::{self, Corpus};
use super::error::CliError;
use super::import::{self, Job, Known};
use super::library::{self, NewLibrary};
use super::model;
use super::progress::Bars;
use super::read::Fields;
use super::search::{self, Wanted};
use super::terminal::{Style, Terminal, counted};

/// Where and how the demo's server is to run.
#[derive(Debug)]
pub struct DemoSite {
    /// The directory for its data: empty.
    pub data_dir: PathBuf,
    /// The socket it is to answer on, already bound.
    pub listener: TcpListener,
    /// It is to stop when this resolves.
    pub stop: oneshot::Receiver<()>,
}

/// Serves a site until it is told to stop; the text of an error is for the user.
pub type DemoServer =
    Box<dyn FnOnce(DemoSite) -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> + Send>;

/// Ports tried from the one asked for on.
const PORTS_TRIED: u16 = 100;

/// How often a server that is not ready is asked again.
const READY_POLL: Duration = Duration::from_millis(100);

/// The longest a server may take to be ready; fetching the model is done before.
const READY_TIMEOUT: Duration = Duration::from_mins(2);

/// Passages shown per search.
const SHOWN: u16 = 2;

/// The library's name.
const LIBRARY: &str = "demo";

/// Searches whose words are not those of the passages they should find.
const SEARCHES: [&str; 5] = [
    "remember the order in which keys were added",
    "show people how far a long task has come",
    "split work over all cores",
    "make data smaller before sending it",
    "keep two threads from changing the same value at once",
];

/// Runs the command.
pub(crate) async fn run(
    args: DemoArgs,
    surroundings: &mut Surroundings,
    serve: DemoServer,
) -> Result<(), CliError> {
    let data_dir = empty_dir(args.data_dir.as_deref(), &surroundings.temp_dir)?;
    let corpus = corpus(&args, surroundings)?;
    let terminal = &mut surroundings.terminal;
    if surroundings.model_is_used {
        model::fetch_missing(&surroundings.model, terminal).await?;
    }
    let listener = bind(args.port)?;
    let address = listener.local_addr()?;
    let url = format!("http://{address}");
    terminal.line(&format!("Server   {url}"))?;
    terminal.line(&format!("Data     {}", data_dir.display()))?;
    let files = counted(corpus.files.len() as u64, "file");
    terminal.line(&format!("Reading  {files} of documentation from {}", corpus.root.display()))?;
    terminal.flush()?;

    let (stop, stopped) = oneshot::channel();
    let mut server = tokio::spawn(serve(DemoSite { data_dir, listener, stop: stopped }));
    let tour = async {
        let client = Client::new(&ServerArgs { server: url, api_key: None })?;
        ready(&client).await?;
        tour(&client, corpus, terminal).await?;
        if !args.once {
            terminal.line("Press Ctrl-C to stop; the data stays where it is.")?;
            terminal.flush()?;
            tokio::signal::ctrl_c().await?;
        }
        Ok::<(), CliError>(())
    };
    let ended = |outcome: Result<Result<(), String>, tokio::task::JoinError>| match outcome {
        Ok(outcome) => outcome.map_err(CliError::Setup),
        Err(error) => Err(CliError::Setup(error.to_string())),
    };
    tokio::select! {
        outcome = &mut server => ended(outcome),
        outcome = tour => {
            // A server that has already stopped needs no telling.
            stop.send(()).ok();
            ended(server.await).and(outcome)
        }
    }
}

/// The directory for the data, made if need be; an error if something is in it.
fn empty_dir(wanted: Option<&Path>, temp_dir: &Path) -> Result<PathBuf, CliError> {
    let Some(path) = wanted else {
        let dir = tempfile::Builder::new().prefix("arrwdb-demo-").tempdir_in(temp_dir);
        return Ok(dir.map_err(|error| CliError::file(temp_dir, error))?.keep());
    };
    std::fs::create_dir_all(path).map_err(|error| CliError::file(path, error))?;
    let mut entries = std::fs::read_dir(path).map_err(|error| CliError::file(path, error))?;
    match entries.next() {
        None => std::path::absolute(path).map_err(|error| CliError::file(path, error)),
        Some(_) => Err(CliError::NotEmpty { path: path.to_owned() }),
    }
}

fn corpus(args: &DemoArgs, surroundings: &Surroundings) -> Result<Corpus, CliError> {
    let cargo_home = surroundings.cargo_home.as_deref();
    let found = match &args.docs {
        Some(docs) => demo_corpus::choose(None, docs, args.passages),
        None => demo_corpus::choose(cargo_home, &surroundings.working_dir, args.passages),
    };
    found.ok_or_else(|| {
        CliError::Setup(
            "no documentation was found in cargo's registry folder or under this directory; \
             name a folder of Markdown files with --docs DIR"
                .to_owned(),
        )
    })
}

/// A socket on `port` or, where that is taken, on one of the next; 0 takes any free one.
fn bind(port: u16) -> Result<TcpListener, CliError> {
    let mut refused = None;
    for port in (port..=u16::MAX).take(PORTS_TRIED.into()) {
        match TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port))) {
            Ok(listener) => {
                listener.set_nonblocking(true)?;
                return Ok(listener);
            }
            Err(error) => refused = Some(error),
        }
    }
    let why = refused.map(|error| error.to_string()).unwrap_or_default();
    Err(CliError::Setup(format!("no port from {port} on is free: {why}")))
}

/// Waits until the server says that it can work.
async fn ready(client: &Client) -> Result<(), CliError> {
    let asked = Instant::now();
    loop {
        let request = client.request(Method::GET, "ready")?;
        match client.json::<Value>(request, "start").await {
            Ok(_) => return Ok(()),
            Err(CliError::Refused { status: 503, .. }) if asked.elapsed() < READY_TIMEOUT => {
                tokio::time::sleep(READY_POLL).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Imports, searches and says what to try next.
async fn tour(client: &Client, corpus: Corpus, terminal: &mut Terminal) -> Result<(), CliError> {
    let new = NewLibrary { index: "brute_force", metric: "cosine", language: "en" };
    let (library, _) = library::find_or_create(client, LIBRARY, new).await?;
    let job = Job {
        library: library.id,
        files: corpus.files,
        fields: Fields::default(),
        known: Known::default(),
        streams: 2,
        bars: Bars::on(terminal),
    };
    let (counts, _) = import::execute(client, job).await?;
    terminal.line(&format!(
        "Imported {} as {} in {:.1} s ({:.0} passages/s)\n",
        counted(counts.stored, "document"),
        counted(counts.chunks, "passage"),
        counts.seconds,
        counts.chunks as f64 / counts.seconds.max(0.001)
    ))?;
    for failure in &counts.failures {
        terminal.note(&format!("Not imported: {failure}"));
    }
    for query in SEARCHES {
        let wanted =
            Wanted { query: query.to_owned(), k: SHOWN, threshold: None, mode: SearchMode::Vector };
        let began = Instant::now();
        let answer = search::parsed(search::ask(client, library.id, &wanted).await?)?;
        let took = format!("{:.1} ms", began.elapsed().as_secs_f64() * 1e3);
        let heading = terminal.styled(Style::Strong, &format!("> {query}"));
        terminal.line(&format!("{heading}  {}", terminal.styled(Style::Faint, &took)))?;
        search::show(terminal, query, &answer)?;
        terminal.flush()?;
    }
    next_steps(client, &library.id.to_string(), terminal)
}

fn next_steps(client: &Client, library: &str, terminal: &mut Terminal) -> Result<(), CliError> {
    let server = client.server();
    let heading = terminal.styled(Style::Strong, "The server is running. Try next:");
    let lines = [
        heading,
        format!("  {server}/docs   every endpoint, to try in the browser"),
        format!("  arrwdb search --server {server} \"wait for several things at once\""),
        format!("  arrwdb import --server {server} --library {LIBRARY} PATH"),
        format!("  curl {server}/v1/libraries"),
        format!(
            "  curl {server}/v1/libraries/{library}/search -H 'Content-Type: application/json' \\\n    \
             -d '{{\"query\": \"wait for several things at once\", \"k\": 3}}'"
        ),
    ];
    for line in lines {
        terminal.line(&line)?;
    }
    terminal.line("")?;
    Ok(terminal.flush()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_leads_to_the_next() {
        let first = bind(20_011).unwrap();
        let port = first.local_addr().unwrap().port();
        let second = bind(port).unwrap().local_addr().unwrap().port();
        assert!(second > port && second - port < PORTS_TRIED);
    }

    #[test]
    fn a_directory_with_something_in_it_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let made = empty_dir(None, temp.path()).unwrap();
        assert!(made.starts_with(temp.path()) && made.is_dir());
        let new = temp.path().join("a/b");
        assert_eq!(empty_dir(Some(&new), temp.path()).unwrap(), new);
        std::fs::write(new.join("x"), "").unwrap();
        assert!(matches!(empty_dir(Some(&new), temp.path()), Err(CliError::NotEmpty { .. })));
    }
}
