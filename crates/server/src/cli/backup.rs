//! `arrwdb backup` and `arrwdb restore`.

use std::path::Path;
use std::sync::Arc;

use arrwdb_engine::backup::{
    self, BackupError, Forgotten, Progress, RestoreTo, Site, Taken, Target,
};
use arrwdb_engine::embed::deterministic::DeterministicProvider;
use arrwdb_engine::embed::http::{HttpOptions, http_client};
use arrwdb_engine::embed::{EmbedConfig, EmbedParts, Embedder, LocalSource, TokioTimer};
use arrwdb_engine::state::Timestamp;
use arrwdb_engine::{EngineConfig, EngineParts};
use parking_lot::Mutex;

use super::Surroundings;
use super::args::{BackupArgs, RestoreArgs};
use super::error::CliError;
use super::progress::{Bars, ByteBar};
use super::terminal::{Terminal, counted, grouped};
use crate::backups::open_target;

/// Runs `arrwdb backup`.
pub(crate) async fn run(args: BackupArgs, around: &mut Surroundings) -> Result<(), CliError> {
    let target = open(&args.target, around)?;
    if args.list {
        return list(target, &mut around.terminal).await;
    }
    let dir = args.data_dir.unwrap_or_else(|| around.data_dir.clone());
    let bar = Arc::new(TransferBar::new(Bars::on(&around.terminal), "Backing up"));
    let (to, shown) = (target.clone(), bar.clone());
    let taken = blocking(move || backup::take(&Site::system(dir), &*to, &*shown)).await?;
    let seconds = bar.finish();
    tell(&taken, seconds, &mut around.terminal);
    if args.verify {
        verify(target.clone(), around).await?;
    }
    if let Some(keep) = args.keep {
        let keep = usize::try_from(keep).unwrap_or(usize::MAX);
        let Forgotten { points, objects, bytes } =
            blocking(move || backup::forget(&*target, keep)).await?;
        if points + objects > 0 {
            around.terminal.note(&format!(
                "Forgot {} and deleted {} that only they needed ({}).",
                counted(points, "older restore point"),
                counted(objects, "object"),
                size(bytes)
            ));
        }
    }
    around.terminal.line(&format!("Restore point {}", taken.point.seq))?;
    Ok(around.terminal.flush()?)
}

fn tell(taken: &Taken, seconds: f64, terminal: &mut Terminal) {
    let Taken { point, objects_sent, bytes_sent, gap } = taken;
    if let Some((from, to)) = gap {
        terminal.note(&format!(
            "The log does not go on from the restore point {from} (the directory was restored or \
             made anew, or the log was trimmed since): sequence numbers after {from} and before \
             {to} cannot be restored."
        ));
    }
    terminal.note(&format!(
        "Backed up {} at sequence {}: sent {} in {} and {seconds:.1} s.",
        counted_libraries(point.library_count),
        grouped(point.seq),
        size(*bytes_sent),
        counted(*objects_sent, "object"),
    ));
}

/// Restores the newest restore point beside other temporary files, and compares it.
async fn verify(target: Arc<dyn Target>, around: &mut Surroundings) -> Result<(), CliError> {
    let temporary = tempfile::Builder::new()
        .prefix("arrwdb-verify-")
        .tempdir_in(&around.temp_dir)
        .map_err(|error| CliError::file(&around.temp_dir, error))?;
    let parts = EngineParts::system(no_embedder().await?);
    let config = EngineConfig::new(temporary.path().join("data"));
    let bar = Arc::new(TransferBar::new(Bars::on(&around.terminal), "Verifying"));
    let verified = backup::verify(target, config, parts, bar.clone())
        .await
        .map_err(|error| explained(&error))?;
    let seconds = bar.finish();
    around.terminal.note(&format!(
        "Verified by restoring: {} with {} and {} are as they were at sequence {}, in {seconds:.1} s.",
        counted_libraries(verified.libraries),
        counted(verified.documents, "document"),
        counted(verified.chunks, "passage"),
        grouped(verified.restored.seq),
    ));
    temporary.close().map_err(|error| CliError::file(&around.temp_dir, error))
}

/// An embedder that is never asked: opening a directory embeds nothing.
async fn no_embedder() -> Result<Embedder, CliError> {
    let setup = |error: &dyn std::error::Error| CliError::Setup(error.to_string());
    let parts = EmbedParts {
        local: LocalSource::Custom(Arc::new(DeterministicProvider)),
        http: http_client(&HttpOptions::default()).map_err(|error| setup(&error))?,
        timer: Arc::new(TokioTimer::new()),
        random: Arc::new(|| 0),
    };
    Embedder::open(EmbedConfig::default(), parts).await.map_err(|error| setup(&error))
}

async fn list(target: Arc<dyn Target>, terminal: &mut Terminal) -> Result<(), CliError> {
    let points = blocking(move || backup::points(&*target)).await?;
    terminal.line(&format!(
        "{:<20}  {:>20}  {:>9}  {:>10}  {:>12}",
        "taken", "sequence", "libraries", "size", "from sequence"
    ))?;
    for point in points {
        terminal.line(&format!(
            "{:<20}  {:>20}  {:>9}  {:>10}  {:>12}",
            written(point.taken()),
            point.seq,
            point.library_count,
            size(point.bytes()),
            point.floor
        ))?;
    }
    Ok(terminal.flush()?)
}

/// Runs `arrwdb restore`.
pub(crate) async fn restore(args: RestoreArgs, around: &mut Surroundings) -> Result<(), CliError> {
    let target = open(&args.target, around)?;
    let time =
        args.to_time.map(|time| RestoreTo::Time(Timestamp::from_micros(time.as_microsecond())));
    let to = args
        .to_seq
        .map(RestoreTo::Seq)
        .or(args.point.map(RestoreTo::Point))
        .or(time)
        .unwrap_or(RestoreTo::Newest);
    let bar = Arc::new(TransferBar::new(Bars::on(&around.terminal), "Restoring"));
    let was_empty = is_empty(&args.dir);
    let (dir, shown) = (args.dir.clone(), bar.clone());
    let outcome =
        blocking(move || backup::restore(&*target, &Site::system(dir), to, &*shown)).await;
    if outcome.is_err() && was_empty && !is_empty(&args.dir) {
        let dir = args.dir.display();
        around.terminal.note(&format!("{dir} is not whole, and no server opens it: delete it."));
    }
    let restored = outcome?;
    let seconds = bar.finish();
    let terminal = &mut around.terminal;
    terminal.note(&format!(
        "Restored sequence {} to {} ({} in {seconds:.1} s). New writes get numbers above {}.",
        grouped(restored.seq),
        args.dir.display(),
        size(restored.bytes),
        grouped(restored.goes_on_after),
    ));
    terminal.line(&format!("Restored {}", restored.seq))?;
    Ok(terminal.flush()?)
}

/// Whether a directory holds nothing, or is not there.
fn is_empty(dir: &Path) -> bool {
    std::fs::read_dir(dir).map_or(true, |mut names| names.next().is_none())
}

fn open(target: &str, around: &Surroundings) -> Result<Arc<dyn Target>, CliError> {
    open_target(target, &around.aws).map_err(CliError::Backup)
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, BackupError> + Send + 'static,
) -> Result<T, CliError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| CliError::Setup(error.to_string()))?.map_err(|error| explained(&error))
}

/// The error in words, with the times in it.
fn explained(error: &BackupError) -> CliError {
    let text = error.to_string();
    let BackupError::TimeUnreachable { from, to } = error else { return CliError::Backup(text) };
    let point = |which: &str, time: Option<Timestamp>| {
        time.map_or_else(String::new, |time| {
            format!("; the restore point {which} it is of {}", written(time))
        })
    };
    CliError::Backup(format!("{text}{}{}", point("before", *from), point("after", *to)))
}

/// A time to the second, as RFC 3339.
fn written(time: Timestamp) -> String {
    jiff::Timestamp::from_second(time.micros().div_euclid(1_000_000))
        .map_or_else(|_error| time.micros().to_string(), |time| time.to_string())
}

fn counted_libraries(count: u64) -> String {
    if count == 1 { "1 library".to_owned() } else { format!("{} libraries", grouped(count)) }
}

/// Bytes as people read them.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["kB", "MB", "GB", "TB", "PB"];
    if bytes < 1000 {
        return counted(bytes, "byte");
    }
    let mut value = bytes as f64 / 1000.0;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A bar whose total grows as more is found to be moved.
#[derive(Debug)]
struct TransferBar {
    bar: ByteBar,
    moved: Mutex<(u64, u64)>,
}

impl TransferBar {
    fn new(bars: Bars, title: &str) -> Self {
        Self { bar: ByteBar::transfer(bars, title, Some(0)), moved: Mutex::default() }
    }

    /// Takes it off the screen; how long it took.
    fn finish(&self) -> f64 {
        self.bar.finish();
        self.bar.seconds()
    }
}

impl Progress for TransferBar {
    fn expect(&self, bytes: u64) {
        let mut moved = self.moved.lock();
        moved.1 += bytes;
        self.bar.set_total(moved.1);
    }

    fn advance(&self, bytes: u64) {
        let mut moved = self.moved.lock();
        moved.0 += bytes;
        self.bar.set_done(moved.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_at_a_glance() {
        for (bytes, text) in [
            (0, "0 bytes"),
            (1, "1 byte"),
            (1500, "1.5 kB"),
            (999_960, "1.0 MB"),
            (12_345_678_901, "12.3 GB"),
            (u64::MAX, "18446.7 PB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn times_are_written_to_the_second() {
        assert_eq!(written(Timestamp::from_micros(1_772_366_400_999_999)), "2026-03-01T12:00:00Z");
    }
}
