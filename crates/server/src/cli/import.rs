//! `arrwdb import`: files and folders into a library.
//!
//! Readers parse files on blocking threads and drop what the server already holds (U2); streams
//! carry the rest. Queues between them hold a few documents each (U3).

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex as BlockingMutex, PoisonError};

use futures_util::stream::{self, StreamExt};
use reqwest::Method;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::args::ImportArgs;
use super::client::Client;
use super::error::CliError;
use super::item::{HASH_KEY, Item, ItemMaker, PATH_KEY, Place};
use super::library::{self, Library, NewLibrary};
use super::progress::{Bars, ByteBar};
use super::read::{self, Fields, Found};
use super::source::{self, Source};
use super::terminal::{Style, Terminal, counted, grouped};
use super::upload::{self, Sent};

/// Threads that read and parse files; embedding on the server is what takes the time.
const READERS: usize = 2;

/// Documents between the readers and the streams.
const QUEUE_ITEMS: usize = 16;

/// Failures that are listed; more are only counted.
const FAILURES_LISTED_MAX: usize = 100;

/// Documents asked of the server at once.
const PAGE_SIZE: u64 = 100;

/// Deletions under way at the same time.
const DELETES_AT_ONCE: usize = 8;

/// What an import did.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) stored: u64,
    pub(crate) chunks: u64,
    pub(crate) unchanged: u64,
    pub(crate) pruned: u64,
    /// Files without any text in them.
    pub(crate) empty: u64,
    /// Files of text's name that are not text.
    pub(crate) binary: u64,
    pub(crate) latin1: u64,
    pub(crate) failed: u64,
    /// The first failures, as "place: reason".
    pub(crate) failures: Vec<String>,
    pub(crate) seconds: f64,
}

impl Counts {
    fn fail(&mut self, place: &Place, reason: &str) {
        self.failed += 1;
        if self.failures.len() < FAILURES_LISTED_MAX {
            self.failures.push(format!("{place}: {reason}"));
        }
    }

    fn remark(&self, seconds: f64) -> String {
        let rate = if seconds > 0.0 { self.chunks as f64 / seconds } else { 0.0 };
        let mut text = format!(
            "{}  {}  {rate:.0}/s",
            counted(self.stored, "document"),
            counted(self.chunks, "passage")
        );
        for (count, what) in [(self.unchanged, "unchanged"), (self.failed, "failed")] {
            if count > 0 {
                text.extend(["  ", &grouped(count), " ", what]);
            }
        }
        text
    }
}

/// What the server holds from earlier imports.
#[derive(Debug, Default)]
pub(crate) struct Known {
    /// Document id to content hash.
    hashes: HashMap<Uuid, String>,
    /// Document id to path, kept only for pruning.
    paths: HashMap<Uuid, PathBuf>,
}

/// What to import and how.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) library: Uuid,
    pub(crate) files: Vec<Source>,
    pub(crate) fields: Fields,
    pub(crate) known: Known,
    pub(crate) streams: usize,
    pub(crate) bars: Bars,
}

/// Runs the command; the exit code says whether every document is in.
pub(crate) async fn run(args: ImportArgs, terminal: &mut Terminal) -> Result<ExitCode, CliError> {
    let paths = args.paths.clone();
    let sources = tokio::task::spawn_blocking(move || source::walk(&paths));
    let sources = sources.await.map_err(|error| CliError::Setup(error.to_string()))??;
    let client = Client::new(&args.server)?;
    let new =
        NewLibrary { index: &args.index_type, metric: &args.metric, language: &args.language };
    let (library, created) = library::find_or_create(&client, &args.library, new).await?;
    let known = if created || (args.force && !args.prune) || library.num_documents == 0 {
        Known::default()
    } else {
        known(&client, &library, &args).await?
    };
    let old_paths = known.paths.clone();
    let job = Job {
        library: library.id,
        files: sources.files,
        fields: Fields { title: args.title_field.clone(), text: args.text_field.clone() },
        known,
        streams: args.streams.into(),
        bars: Bars::on(terminal),
    };
    let (mut counts, seen) = execute(&client, job).await?;
    for (place, reason) in &sources.failed {
        counts.fail(place, reason);
    }
    let gone = gone(old_paths, &seen, &sources.roots);
    if args.prune && counts.failed == 0 {
        counts.pruned = prune(&client, library.id, &gone).await?;
    }
    summary(terminal, &library, &counts, sources.unknown);
    if args.prune && counts.failed > 0 && !gone.is_empty() {
        terminal.note("Nothing was pruned, because what could not be read may not be gone.");
    }
    Ok(if counts.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Imports a job's files; what it did, and the ids of every document it came upon.
pub(crate) async fn execute(
    client: &Client,
    job: Job,
) -> Result<(Counts, HashSet<Uuid>), CliError> {
    let total = job.files.iter().map(|file| file.bytes).sum();
    let bar = ByteBar::work(job.bars, "Importing", total);
    let (item_sender, items) = mpsc::channel::<Item>(QUEUE_ITEMS);
    let (note_sender, mut notes) = mpsc::channel::<Note>(QUEUE_ITEMS);
    let (sent_sender, mut sent) = mpsc::channel::<Sent>(QUEUE_ITEMS);
    let queue = Arc::new(Mutex::new(items));
    let mut streams = JoinSet::new();
    for _ in 0..job.streams.max(1) {
        let sending =
            upload::send_all(client.clone(), job.library, Arc::clone(&queue), sent_sender.clone());
        streams.spawn(sending);
    }
    drop((sent_sender, queue));
    let mut readers = JoinSet::new();
    let work = Arc::new(Work {
        files: BlockingMutex::new(job.files.into_iter()),
        maker: ItemMaker::new(job.library),
        fields: job.fields,
        hashes: job.known.hashes,
    });
    for _ in 0..READERS {
        let (work, items, notes) = (Arc::clone(&work), item_sender.clone(), note_sender.clone());
        readers.spawn_blocking(move || work.read(&items, &notes));
    }
    drop((item_sender, note_sender));

    let mut counts = Counts::default();
    let mut seen = HashSet::new();
    let (mut noting, mut sending) = (true, true);
    while noting || sending {
        tokio::select! {
            note = notes.recv(), if noting => match note {
                Some(note) => bar.add_done(note.count(&mut counts, &mut seen)),
                None => noting = false,
            },
            outcome = sent.recv(), if sending => match outcome {
                Some(outcome) => bar.add_done(count_sent(outcome, &mut counts)),
                None => sending = false,
            },
        }
        bar.remark(counts.remark(bar.seconds()));
    }
    bar.finish();
    counts.seconds = bar.seconds();
    while let Some(outcome) = streams.join_next().await {
        outcome.map_err(|error| CliError::Setup(error.to_string()))??;
    }
    while let Some(outcome) = readers.join_next().await {
        outcome.map_err(|error| CliError::Setup(error.to_string()))?;
    }
    Ok((counts, seen))
}

/// Counts what became of a document; the bytes it stood for.
fn count_sent(outcome: Sent, counts: &mut Counts) -> u64 {
    match outcome {
        Sent::Stored { chunks, source_bytes } => {
            counts.stored += 1;
            counts.chunks += chunks;
            source_bytes
        }
        Sent::Failed { place, reason, source_bytes } => {
            counts.fail(&place, &reason);
            source_bytes
        }
    }
}

/// What a reader tells besides its items.
#[derive(Debug)]
enum Note {
    /// A document that goes to the server.
    Changed(Uuid),
    /// A document that the server holds as it is, and the bytes it stands for.
    Unchanged(Uuid, u64),
    /// Anything else.
    Found(Found),
    /// A whole file of this many bytes holds nothing to import.
    Nothing(u64, Found),
}

impl Note {
    /// Counts the note; the bytes of the source that are done with it.
    fn count(self, counts: &mut Counts, seen: &mut HashSet<Uuid>) -> u64 {
        let (found, bytes) = match self {
            Note::Changed(id) => {
                seen.insert(id);
                return 0;
            }
            Note::Unchanged(id, bytes) => {
                seen.insert(id);
                counts.unchanged += 1;
                return bytes;
            }
            Note::Found(found) => (found, 0),
            Note::Nothing(bytes, found) => (found, bytes),
        };
        match found {
            Found::Bytes(more) => return bytes + more,
            Found::Empty => counts.empty += 1,
            Found::Binary => counts.binary += 1,
            Found::Latin1 => counts.latin1 += 1,
            Found::Failed { place, reason } => counts.fail(&place, &reason),
            Found::Item(_) => {}
        }
        bytes
    }
}

/// What the readers share.
struct Work {
    files: BlockingMutex<std::vec::IntoIter<Source>>,
    maker: ItemMaker,
    fields: Fields,
    hashes: HashMap<Uuid, String>,
}

impl Work {
    /// Reads files until there are no more or nobody takes their documents.
    fn read(&self, items: &mpsc::Sender<Item>, notes: &mpsc::Sender<Note>) {
        loop {
            let next = self.files.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(source) = next else { return };
            let mut sink = |found: Found| self.take(found, source.bytes, items, notes);
            if read::read(&source, &self.maker, &self.fields, &mut sink).is_break() {
                return;
            }
        }
    }

    fn take(
        &self,
        found: Found,
        file_bytes: u64,
        items: &mpsc::Sender<Item>,
        notes: &mpsc::Sender<Note>,
    ) -> ControlFlow<()> {
        let note = match found {
            Found::Item(item) if self.hashes.get(&item.id) == Some(&item.hash) => {
                Note::Unchanged(item.id, item.source_bytes)
            }
            Found::Item(item) => {
                let id = item.id;
                // Nobody takes items once every stream has ended with an error.
                if items.blocking_send(item).is_err() {
                    return ControlFlow::Break(());
                }
                Note::Changed(id)
            }
            Found::Empty | Found::Binary => Note::Nothing(file_bytes, found),
            Found::Bytes(_) | Found::Latin1 | Found::Failed { .. } => Note::Found(found),
        };
        match notes.blocking_send(note) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    }
}

#[derive(Debug, Deserialize)]
struct Page {
    documents: Vec<Listed>,
    #[serde(default)]
    total: u64,
}

#[derive(Debug, Deserialize)]
struct Listed {
    id: Uuid,
    #[serde(default)]
    metadata: Value,
}

/// Asks the server for the ids and hashes of the documents it holds.
async fn known(client: &Client, library: &Library, args: &ImportArgs) -> Result<Known, CliError> {
    let mut known = Known::default();
    let mut listed = 0;
    for page in 1_u64.. {
        let path = format!(
            "v1/libraries/{}/documents?page={page}&page_size={PAGE_SIZE}&include_embeddings=false",
            library.id
        );
        let request = client.request(Method::GET, &path)?;
        let answer: Page = client.json(request, "list the documents").await?;
        listed += answer.documents.len() as u64;
        let last = answer.documents.is_empty() || listed >= answer.total;
        for document in answer.documents {
            known.keep(&document, args);
        }
        if last {
            break;
        }
    }
    Ok(known)
}

impl Known {
    fn keep(&mut self, document: &Listed, args: &ImportArgs) {
        let text = |key: &str| document.metadata.get("custom")?.get(key)?.as_str();
        if !args.force
            && let Some(hash) = text(HASH_KEY)
        {
            self.hashes.insert(document.id, hash.to_owned());
        }
        if args.prune
            && let Some(path) = text(PATH_KEY)
        {
            self.paths.insert(document.id, PathBuf::from(path));
        }
    }
}

/// The documents that came from under `roots` and were not seen this time.
fn gone(old_paths: HashMap<Uuid, PathBuf>, seen: &HashSet<Uuid>, roots: &[PathBuf]) -> Vec<Uuid> {
    let mut gone: Vec<Uuid> = old_paths
        .into_iter()
        .filter(|(id, path)| !seen.contains(id) && roots.iter().any(|root| path.starts_with(root)))
        .map(|(id, _)| id)
        .collect();
    gone.sort_unstable();
    gone
}

/// Deletes documents from the library; how many there were.
async fn prune(client: &Client, library: Uuid, gone: &[Uuid]) -> Result<u64, CliError> {
    let outcomes: Vec<Result<bool, CliError>> = stream::iter(gone)
        .map(|id| async move {
            let path = format!("v1/libraries/{library}/documents/{id}");
            match client.send(client.request(Method::DELETE, &path)?, "delete a document").await {
                Ok(_) => Ok(true),
                // Somebody else was faster.
                Err(CliError::Refused { status: 404, .. }) => Ok(false),
                Err(error) => Err(error),
            }
        })
        .buffer_unordered(DELETES_AT_ONCE)
        .collect()
        .await;
    let mut pruned = 0;
    for outcome in outcomes {
        pruned += u64::from(outcome?);
    }
    Ok(pruned)
}

/// Tells what was done; failures are listed last, where they are seen.
fn summary(terminal: &mut Terminal, library: &Library, counts: &Counts, unknown: u64) {
    let rate = counts.chunks as f64 / counts.seconds.max(0.001);
    let done = format!(
        "Imported {} ({}) into {:?} in {:.1} s, {rate:.0} passages/s.",
        counted(counts.stored, "document"),
        counted(counts.chunks, "passage"),
        library.name,
        counts.seconds
    );
    terminal.note(&terminal.styled(Style::Strong, &done));
    let remarks = [
        (counts.unchanged, "document", "unchanged and not sent"),
        (counts.pruned, "document", "gone from the paths and deleted"),
        (unknown, "file", "of an unknown type left out"),
        (counts.empty, "file", "without text left out"),
        (counts.binary, "file", "not text and left out"),
        (counts.latin1, "file", "not UTF-8 and read as Latin-1"),
    ];
    for (count, noun, remark) in remarks {
        if count > 0 {
            terminal.note(&format!("  {} {remark}", counted(count, noun)));
        }
    }
    if counts.failed > 0 {
        let failed = format!("{} failed:", counted(counts.failed, "document"));
        terminal.note(&terminal.styled(Style::Bad, &failed));
        for failure in &counts.failures {
            terminal.note(&format!("  {failure}"));
        }
        let more = counts.failed - counts.failures.len() as u64;
        if more > 0 {
            terminal.note(&format!("  and {} more", grouped(more)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_under_the_paths_and_is_gone_is_pruned() {
        let path = |id: u128, path: &str| (Uuid::from_u128(id), PathBuf::from(path));
        let old = HashMap::from([path(1, "/a/x"), path(2, "/a/y"), path(3, "/ab/z")]);
        let seen = HashSet::from([Uuid::from_u128(1)]);
        assert_eq!(gone(old, &seen, &[PathBuf::from("/a")]), [Uuid::from_u128(2)]);
    }
}
