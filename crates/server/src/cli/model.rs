//! `arrwdb model`: where the local model's files are, fetching them, verifying them.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use arrwdb_engine::embed::http::{HttpOptions, http_client};
use arrwdb_engine::embed::model_files::{
    self, FetchError, FetchOptions, FetchStep, FetchTimeouts, ModelFiles, Progress, Source,
    SourceError,
};

use super::args::{ModelAction, ModelArgs};
use super::error::CliError;
use super::progress::{Bars, ByteBar};
use super::terminal::Terminal;

/// Where the local model's files belong and where they can be had.
#[derive(Clone, Debug)]
pub struct ModelSite {
    /// The folder they are in, or are fetched into.
    pub dir: PathBuf,
    /// Where to fetch them from, in this order; empty where fetching is switched off.
    pub sources: Vec<Source>,
}

/// Runs the command.
pub(crate) async fn run(
    args: ModelArgs,
    site: &ModelSite,
    terminal: &mut Terminal,
) -> Result<(), CliError> {
    let dir = site.dir.display();
    match args.action {
        ModelAction::Path => {
            terminal.line(&dir.to_string())?;
            terminal.note(match locate(&site.dir)? {
                Some(_) => "The files are there.",
                None => "The files are not there yet; `arrwdb model fetch` brings them.",
            });
        }
        ModelAction::Fetch => {
            let mut sources: Vec<Source> = args.from.iter().map(|from| source(from)).collect();
            sources.extend(site.sources.iter().cloned());
            fetch_missing(&ModelSite { dir: site.dir.clone(), sources }, terminal).await?;
            verify(&site.dir).await?;
            terminal.line(&format!("The model is in {dir} and verified."))?;
        }
        ModelAction::Verify => {
            verify(&site.dir).await?;
            terminal.line(&format!("Every file in {dir} has the published SHA-256."))?;
        }
    }
    Ok(terminal.flush()?)
}

/// Fetches what is missing, with a bar; does nothing when the files are there.
pub(crate) async fn fetch_missing(
    site: &ModelSite,
    terminal: &mut Terminal,
) -> Result<(), CliError> {
    if locate(&site.dir)?.is_some() {
        return Ok(());
    }
    let progress = BarProgress::new(Bars::on(terminal));
    let fetched = fetch_with(site, &progress).await;
    for failure in progress.failures() {
        terminal.note(&failure);
    }
    fetched.map(|_files| ())
}

/// Fetches what is missing of a site's files and tells `progress`.
async fn fetch_with(site: &ModelSite, progress: &dyn Progress) -> Result<ModelFiles, CliError> {
    let http =
        http_client(&HttpOptions::default()).map_err(|error| CliError::Setup(error.to_string()))?;
    let options = FetchOptions {
        dir: site.dir.clone(),
        sources: site.sources.clone(),
        http,
        timeouts: FetchTimeouts::default(),
        progress,
    };
    Ok(model_files::fetch(options).await?)
}

fn locate(dir: &Path) -> Result<Option<ModelFiles>, CliError> {
    model_files::locate(dir).map_err(|error| CliError::file(dir, error))
}

async fn verify(dir: &Path) -> Result<(), CliError> {
    let dir = dir.to_owned();
    let verified = tokio::task::spawn_blocking(move || model_files::verify(&dir)).await;
    verified.map_err(|error| CliError::Setup(error.to_string()))??;
    Ok(())
}

/// A source as it is written on the command line: a web folder or a folder.
fn source(text: &str) -> Source {
    if text.starts_with("http://") || text.starts_with("https://") {
        Source::Url(text.to_owned())
    } else {
        Source::Directory(PathBuf::from(text))
    }
}

/// Shows a fetch of the model's files as bars, one per file. The server uses it at its first start.
#[derive(Debug)]
pub struct BarProgress {
    bars: Bars,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    current: Option<(String, ByteBar)>,
    failures: Vec<String>,
}

impl BarProgress {
    /// Shows nothing yet.
    pub fn new(bars: Bars) -> BarProgress {
        BarProgress { bars, state: Mutex::new(State::default()) }
    }

    /// The sources that were given up so far, each with its reason, as sentences.
    pub fn failures(&self) -> Vec<String> {
        self.state().failures.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress for BarProgress {
    fn advance(&self, step: FetchStep<'_>) {
        let title = format!("{} from {}", step.file, step.source);
        let mut state = self.state();
        if state.current.as_ref().is_none_or(|(shown, _)| *shown != title) {
            let bar = ByteBar::transfer(self.bars, &title, step.total);
            state.current = Some((title, bar));
        }
        if let Some((_, bar)) = &state.current {
            bar.set_done(step.bytes);
            if step.total == Some(step.bytes) {
                bar.finish();
            }
        }
    }

    fn failed(&self, source: &str, reason: &SourceError) {
        let mut state = self.state();
        state.current = None;
        state.failures.push(format!("{source} did not have the model: {reason}"));
    }
}

impl From<FetchError> for CliError {
    fn from(error: FetchError) -> CliError {
        CliError::Model(error.to_string())
    }
}

impl From<model_files::VerifyError> for CliError {
    fn from(error: model_files::VerifyError) -> CliError {
        CliError::Model(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_folder_that_has_nothing_is_said_so() {
        let dir = tempfile::tempdir().unwrap();
        let site = ModelSite {
            dir: dir.path().join("model"),
            sources: vec![source(&dir.path().to_string_lossy())],
        };
        let progress = BarProgress::new(Bars::Hidden);
        let error = fetch_with(&site, &progress).await.unwrap_err().to_string();
        assert!(error.contains("could not be fetched"), "{error}");
        assert_eq!(progress.failures().len(), 1);
        assert!(matches!(verify(&site.dir).await, Err(CliError::Model(_))));
    }

    #[test]
    fn a_source_is_a_url_or_a_folder() {
        assert_eq!(source("https://h/x"), Source::Url("https://h/x".to_owned()));
        assert_eq!(source("/x"), Source::Directory("/x".into()));
    }
}
