//! A backup in an S3-compatible object store.

use std::collections::BTreeMap;
use std::io::Read;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use arrwdb_embed::http::{HttpError, HttpOptions, http_client};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use object_store::aws::{AmazonS3, AmazonS3Builder, AmazonS3ConfigKey};
use object_store::client::{HttpClient, HttpConnector};
use object_store::path::Path;
use object_store::{
    ClientOptions, MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload, RetryConfig,
};
use tokio::runtime::Handle;
use tokio::task::JoinSet;

use super::target::{Target, TargetError};

/// A larger object is sent in parts of at least this size.
const PART_BYTES: u64 = 8 << 20;
/// Parts of one object; S3 allows 10,000.
const PARTS_MAX: u64 = 9_000;
/// Parts of one object on their way at the same time.
const PARTS_SENDING_MAX: usize = 2;
/// What is used where no region is named; stores other than Amazon's do not care.
const REGION: &str = "us-east-1";

/// A prefix of a bucket.
#[derive(Debug)]
pub struct S3Target {
    name: String,
    store: Arc<AmazonS3>,
    prefix: Path,
    runtime: Handle,
}

/// Why an object store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum S3Error {
    /// The address is not one of a bucket.
    #[error("{url:?} is not s3://BUCKET/PREFIX")]
    Url {
        /// What was given.
        url: String,
    },
    /// A setting is missing or wrong.
    #[error("the object store cannot be used: {0}; see the variables AWS_*")]
    Settings(#[from] object_store::Error),
    /// There is no HTTP client.
    #[error(transparent)]
    Http(#[from] HttpError),
}

/// Hands the product's own HTTP client to the store's.
#[derive(Debug)]
struct Connector(HttpClient);

impl HttpConnector for Connector {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(self.0.clone())
    }
}

impl S3Target {
    /// The store at `s3://bucket/prefix`. `variables` are those of the environment that begin with
    /// `AWS_`: credentials, `AWS_REGION`, `AWS_ENDPOINT_URL` of a store that is not Amazon's, and
    /// what else the AWS tools know. Its methods block on `runtime` and must not be called from it.
    pub fn open(
        url: &str,
        variables: &BTreeMap<String, String>,
        runtime: Handle,
    ) -> Result<Self, S3Error> {
        let wrong = || S3Error::Url { url: url.to_owned() };
        let (bucket, prefix) = url
            .strip_prefix("s3://")
            .map(|place| place.split_once('/').unwrap_or((place, "")))
            .filter(|(bucket, _)| !bucket.is_empty())
            .ok_or_else(wrong)?;
        let prefix = Path::parse(prefix.trim_matches('/')).map_err(|_error| wrong())?;
        let client = HttpClient::new(http_client(&HttpOptions::default())?);
        let mut builder = AmazonS3Builder::new()
            .with_region(REGION)
            .with_retry(RetryConfig {
                max_retries: 6,
                retry_timeout: Duration::from_mins(1),
                ..RetryConfig::default()
            })
            .with_http_connector(Connector(client));
        for (name, value) in variables {
            if let Ok(key) = name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>() {
                builder = builder.with_config(key, value);
            }
        }
        // Whoever writes http:// means it.
        let endpoint = builder.get_config_value(&AmazonS3ConfigKey::Endpoint);
        if endpoint.is_some_and(|endpoint| endpoint.starts_with("http://")) {
            builder = builder.with_allow_http(true);
        }
        let store = Arc::new(builder.with_bucket_name(bucket).build()?);
        Ok(Self { name: url.to_owned(), store, prefix, runtime })
    }

    fn path(&self, key: &str) -> Path {
        key.split('/').fold(self.prefix.clone(), Path::join)
    }

    async fn send_parts(
        &self,
        key: &str,
        bytes: u64,
        source: &mut dyn Read,
    ) -> Result<(), TargetError> {
        let started = self.store.put_multipart(&self.path(key)).await;
        let mut upload = started.map_err(|error| failed("write", key, &error))?;
        let sent = send(&mut *upload, key, bytes, source).await;
        if sent.is_err()
            && let Err(error) = upload.abort().await
        {
            tracing::warn!(key, %error, "parts of an object stay behind in the store");
        }
        sent
    }
}

/// Sends an object's parts and completes it.
async fn send(
    upload: &mut dyn MultipartUpload,
    key: &str,
    bytes: u64,
    source: &mut dyn Read,
) -> Result<(), TargetError> {
    let part_bytes = PART_BYTES.max(bytes.div_ceil(PARTS_MAX));
    let mut sending = JoinSet::new();
    let mut left = bytes;
    while left > 0 || !sending.is_empty() {
        if left > 0 && sending.len() < PARTS_SENDING_MAX {
            let part = read(key, left.min(part_bytes), source)?;
            left -= part.len() as u64;
            sending.spawn(upload.put_part(PutPayload::from(part)));
            continue;
        }
        match sending.join_next().await {
            Some(Ok(Ok(()))) | None => {}
            Some(Ok(Err(error))) => return Err(failed("write", key, &error)),
            Some(Err(error)) => return Err(failed("write", key, &error)),
        }
    }
    upload.complete().await.map(|_done| ()).map_err(|error| failed("write", key, &error))
}

fn read(key: &str, bytes: u64, source: &mut dyn Read) -> Result<Vec<u8>, TargetError> {
    let mut part = vec![0; usize::try_from(bytes).unwrap_or(usize::MAX)];
    source.read_exact(&mut part).map_err(|error| failed("read what is sent as", key, &error))?;
    Ok(part)
}

/// The innermost cause says most.
fn failed(operation: &'static str, key: &str, error: &dyn std::error::Error) -> TargetError {
    let mut causes = vec![error.to_string()];
    let mut inner = error.source();
    while let Some(cause) = inner {
        let text = cause.to_string();
        // Most errors repeat their cause.
        if !causes.iter().any(|known| known.contains(&text)) {
            causes.push(text);
        }
        inner = cause.source();
    }
    TargetError::Failed { operation, key: key.to_owned(), detail: causes.join(": ") }
}

impl Target for S3Target {
    fn name(&self) -> String {
        self.name.clone()
    }

    fn list(&self) -> Result<BTreeMap<String, u64>, TargetError> {
        let prefix = (!self.prefix.as_ref().is_empty()).then_some(&self.prefix);
        let skipped = prefix.map_or(0, |prefix| prefix.as_ref().len() + 1);
        let listed = self.runtime.block_on(
            self.store
                .list(prefix)
                .map_ok(|object| {
                    let key = object.location.as_ref().get(skipped..).unwrap_or_default();
                    (key.to_owned(), object.size)
                })
                .try_collect::<BTreeMap<_, _>>(),
        );
        listed.map_err(|error| failed("list", "the bucket", &error))
    }

    fn get(&self, key: &str, range: Range<u64>) -> Result<Vec<u8>, TargetError> {
        if range.is_empty() {
            return Ok(Vec::new());
        }
        let wanted = range.end - range.start;
        let found = self.runtime.block_on(self.store.get_range(&self.path(key), range));
        match found {
            Ok(bytes) if bytes.len() as u64 == wanted => Ok(bytes.into()),
            Ok(bytes) => Err(TargetError::Failed {
                operation: "read",
                key: key.to_owned(),
                detail: format!("{} bytes came in place of {wanted}", bytes.len()),
            }),
            Err(object_store::Error::NotFound { .. }) => {
                Err(TargetError::Missing { key: key.to_owned() })
            }
            Err(error) => Err(failed("read", key, &error)),
        }
    }

    fn put(&self, key: &str, bytes: u64, source: &mut dyn Read) -> Result<(), TargetError> {
        if bytes > PART_BYTES {
            return self.runtime.block_on(self.send_parts(key, bytes, source));
        }
        let all = read(key, bytes, source)?;
        let stored = self.runtime.block_on(self.store.put(&self.path(key), all.into()));
        stored.map(|_done| ()).map_err(|error| failed("write", key, &error))
    }

    fn delete(&self, keys: &[String]) -> Result<(), TargetError> {
        let paths: Vec<_> = keys.iter().map(|key| Ok(self.path(key))).collect();
        let deleted = self.store.delete_stream(stream::iter(paths).boxed()).filter(|outcome| {
            let missing = matches!(outcome, Err(object_store::Error::NotFound { .. }));
            std::future::ready(!missing)
        });
        let deleted = self.runtime.block_on(deleted.try_for_each(|_path| async { Ok(()) }));
        deleted.map_err(|error| failed("delete", "objects", &error))
    }
}
