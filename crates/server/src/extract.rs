//! What handlers take: ids from the path, values from the query string, bodies in full.
//!
//! Every refusal is a [`Problem`]; a body is bounded by size and by the time between its parts.

use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrwdb_engine::state::{ChunkId, DocumentId, LibraryId, ParseIdError, QueryId};
use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, RawPathParams, Request};
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::request::Parts;
use http_body::Body as _;
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::app::App;
use crate::json::{Read, Reader, push_token};
use crate::limits::{
    ADMISSION_RETRY_AFTER, BODY_BYTES_PER_SECOND_MIN, BODY_GRACE, DISCARD_BYTES_MAX,
    DISCARD_TIME_MAX,
};
use crate::problem::{self, Problem};

/// The library of the path.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LibraryPath(pub(crate) LibraryId);

/// The document of the path.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DocumentPath(pub(crate) DocumentId);

/// The document of the path within the library of the path.
#[derive(Debug, Clone, Copy)]
pub(crate) struct DocumentInLibrary {
    pub(crate) library: LibraryId,
    pub(crate) id: DocumentId,
}

/// The standing query of the path within the library of the path.
#[derive(Debug, Clone, Copy)]
pub(crate) struct QueryInLibrary {
    pub(crate) library: LibraryId,
    pub(crate) id: QueryId,
}

impl<S: Send + Sync> FromRequestParts<S> for QueryInLibrary {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let library = path_id(parts, state, "library_id").await?;
        Ok(Self { library, id: path_id(parts, state, "query_id").await? })
    }
}

/// The vector of the path within the document of the path.
#[derive(Debug, Clone, Copy)]
pub(crate) struct VectorInDocument {
    pub(crate) library: LibraryId,
    pub(crate) document: DocumentId,
    pub(crate) vector: ChunkId,
}

impl<S: Send + Sync> FromRequestParts<S> for VectorInDocument {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let library = path_id(parts, state, "library_id").await?;
        let document = path_id(parts, state, "document_id").await?;
        Ok(Self { library, document, vector: path_id(parts, state, "vector_id").await? })
    }
}

/// The `name` of the path.
#[derive(Debug, Clone)]
pub(crate) struct PathName(pub(crate) String);

impl<S: Send + Sync> FromRequestParts<S> for PathName {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let params = path_params(parts, state).await?;
        let name = params.iter().find(|(key, _)| *key == "name").map(|(_, value)| value);
        Ok(Self(name.unwrap_or_default().to_owned()))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for LibraryPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        path_id(parts, state, "library_id").await.map(Self)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for DocumentPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        path_id(parts, state, "document_id").await.map(Self)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for DocumentInLibrary {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let library = path_id(parts, state, "library_id").await?;
        Ok(Self { library, id: path_id(parts, state, "document_id").await? })
    }
}

/// What stands in a path, as text; what is not UTF-8 once its percent signs are read is refused.
#[derive(Debug, Clone)]
pub(crate) struct TextPath<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for TextPath<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = axum::extract::Path::from_request_parts(parts, state).await;
        path.map(|axum::extract::Path(text)| Self(text))
            .map_err(|error| Problem::new(&problem::INVALID_REQUEST, error.body_text()))
    }
}

async fn path_params<S: Send + Sync>(
    parts: &mut Parts,
    state: &S,
) -> Result<RawPathParams, Problem> {
    let params = RawPathParams::from_request_parts(parts, state).await;
    params.map_err(|error| Problem::new(&problem::INVALID_REQUEST, error.body_text()))
}

async fn path_id<S, T>(parts: &mut Parts, state: &S, name: &str) -> Result<T, Problem>
where
    S: Send + Sync,
    T: FromStr<Err = ParseIdError>,
{
    let params = path_params(parts, state).await?;
    let text = params.iter().find(|(key, _)| *key == name).map_or("", |(_, value)| value);
    text.parse().map_err(|error: ParseIdError| {
        let mut pointer = "/path".to_owned();
        push_token(&mut pointer, name);
        Problem::field(pointer, error.to_string())
    })
}

/// The query string as pairs; the last of a repeated name counts. Every name and value has to be
/// UTF-8 once its percent signs are read.
#[derive(Debug, Clone, Default)]
pub(crate) struct QueryPairs(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for QueryPairs {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let query = parts.uri.query().unwrap_or_default();
        let pairs = query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = unescape(name).map_err(|lossy| query_fault(&lossy, NOT_UTF8))?;
            let value = unescape(value).map_err(|_lossy| query_fault(&name, NOT_UTF8))?;
            Ok((name, value))
        });
        pairs.collect::<Result<_, Problem>>().map(Self)
    }
}

const NOT_UTF8: &str = "is not UTF-8 once its percent signs are read";

/// Reads the percent signs and plus signs of a form's text; a percent sign without two hexadecimal
/// digits stands for itself. Fails with what can be made of it if it is not UTF-8.
fn unescape(text: &str) -> Result<String, String> {
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let bytes = text.as_bytes();
    let mut plain = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        let escaped = match (byte, digit(bytes.get(at + 1)), digit(bytes.get(at + 2))) {
            (b'%', Some(high), Some(low)) => u8::try_from(high * 16 + low).ok(),
            _ => None,
        };
        plain.push(escaped.unwrap_or(if *byte == b'+' { b' ' } else { *byte }));
        at += if escaped.is_some() { 3 } else { 1 };
    }
    String::from_utf8(plain).map_err(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}

impl QueryPairs {
    /// The value of a parameter; an empty one counts as absent.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().rev().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// All parameters, as they came.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// A parameter that is `true` or `false`.
    pub(crate) fn switch(&self, name: &str) -> Result<Option<bool>, Problem> {
        match self.text(name).map(str::to_ascii_lowercase).as_deref() {
            None => Ok(None),
            Some("true" | "1" | "yes" | "on") => Ok(Some(true)),
            Some("false" | "0" | "no" | "off") => Ok(Some(false)),
            Some(_) => Err(query_fault(name, "must be true or false")),
        }
    }

    /// A parameter that is a whole number in this range.
    pub(crate) fn whole(
        &self,
        name: &str,
        default: u64,
        range: std::ops::RangeInclusive<u64>,
    ) -> Result<u64, Problem> {
        let Some(text) = self.text(name) else { return Ok(default) };
        text.parse().ok().filter(|number| range.contains(number)).ok_or_else(|| {
            let detail =
                format!("must be a whole number from {} to {}", range.start(), range.end());
            query_fault(name, &detail)
        })
    }
}

pub(crate) fn query_fault(name: &str, detail: &str) -> Problem {
    let mut pointer = "/query".to_owned();
    push_token(&mut pointer, name);
    Problem::field(pointer, detail)
}

/// A whole body of JSON, at most `MAX_REQUEST_SIZE` bytes, and its share of the memory of bodies.
#[derive(Debug)]
pub(crate) struct WholeBody(pub(crate) Bytes, pub(crate) OwnedSemaphorePermit);

impl FromRequest<App> for WholeBody {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        check_encoding(request.headers())?;
        check_media_type(&request)?;
        let max = app.config().limits.body_bytes_max;
        let announced = request.headers().get(CONTENT_LENGTH);
        let announced = announced.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        if let Some(announced) = announced
            && usize::try_from(announced).unwrap_or(usize::MAX) > max
        {
            discard(&mut request.into_body()).await;
            return Err(too_large(max, announced));
        }
        let idle = app.config().load.stream_idle_timeout;
        let (body, room) = read_body(request.into_body(), (max, idle), app.bodies()).await?;
        Ok(Self(body, room))
    }
}

/// Media types that are read as JSON: what calls itself so, and what curl says of a body when it is
/// told nothing.
fn is_json(media_type: &str) -> bool {
    let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let named = ["application/x-www-form-urlencoded", "application/x-ndjson", "text/json"];
    essence == "application/json" || essence.ends_with("+json") || named.contains(&&*essence)
}

/// Refuses a body that says it is something else than JSON.
fn check_media_type(request: &Request) -> Result<(), Problem> {
    let Some(value) = request.headers().get(CONTENT_TYPE) else { return Ok(()) };
    if request.body().is_end_stream() || value.to_str().is_ok_and(is_json) {
        return Ok(());
    }
    Err(Problem::new(&problem::MEDIA_TYPE, "the body has to be application/json"))
}

/// Refuses a body that is compressed: its bytes would be taken for broken JSON.
pub(crate) fn check_encoding(headers: &HeaderMap) -> Result<(), Problem> {
    let plain = headers
        .get_all(CONTENT_ENCODING)
        .iter()
        .all(|value| value.as_bytes().trim_ascii().eq_ignore_ascii_case(b"identity"));
    if plain {
        return Ok(());
    }
    Err(Problem::new(&problem::BODY_ENCODING, "compressed bodies are not read"))
}

fn too_large(max: usize, actual: u64) -> Problem {
    let detail = format!("the body has {actual} bytes; at most {max} are allowed");
    Problem::new(&problem::TOO_LARGE, detail)
        .with("max_size_bytes", max)
        .with("actual_size_bytes", actual)
}

/// Reads some of what is left of a refused body. A client that is still sending when the connection
/// is closed gets a reset in place of the answer.
pub(crate) async fn discard(body: &mut Body) {
    let discarded = async {
        let mut bytes = 0;
        while let Ok(Some(data)) = next_data(body, DISCARD_TIME_MAX).await {
            bytes += data.len();
            if bytes > DISCARD_BYTES_MAX {
                break;
            }
        }
    };
    // Whoever sends on for longer has to live with the reset.
    tokio::time::timeout(DISCARD_TIME_MAX, discarded).await.unwrap_or_default();
}

async fn read_body(
    mut body: Body,
    (max, idle): (usize, Duration),
    room: &Arc<Semaphore>,
) -> Result<(Bytes, OwnedSemaphorePermit), Problem> {
    let mut whole: Option<Bytes> = None;
    let mut parts = BytesMut::new();
    let mut pace = Pace::begin(BODY_GRACE);
    let mut held = take_room(room, 0)?;
    while let Some(data) = next_data(&mut body, idle).await? {
        pace.came(data.len())?;
        let size = parts.len() + whole.as_ref().map_or(0, Bytes::len) + data.len();
        if size > max {
            discard(&mut body).await;
            return Err(too_large(max, size as u64));
        }
        if size > held.num_permits() * 1024 {
            // At least as much again, so that many small pieces do not ask for each.
            let kib = size.div_ceil(1024).max((2 * held.num_permits()).min(max.div_ceil(1024)));
            held.merge(take_room(room, kib - held.num_permits())?);
        }
        match whole.take() {
            // A body that comes in one piece is not copied.
            None if parts.is_empty() => whole = Some(data),
            first => {
                parts.extend_from_slice(&first.unwrap_or_default());
                parts.extend_from_slice(&data);
            }
        }
    }
    Ok((whole.unwrap_or_else(|| parts.freeze()), held))
}

fn take_room(room: &Arc<Semaphore>, kib: usize) -> Result<OwnedSemaphorePermit, Problem> {
    let kib = u32::try_from(kib).unwrap_or(u32::MAX);
    Arc::clone(room).try_acquire_many_owned(kib).map_err(|_full| {
        let detail = "the bodies of other requests take all the memory there is for bodies";
        Problem::new(&problem::BUSY, detail).retry_after(ADMISSION_RETRY_AFTER)
    })
}

/// How fast a body arrives.
#[derive(Debug)]
pub(crate) struct Pace {
    began: Instant,
    grace: Duration,
    bytes: u64,
}

impl Pace {
    /// Nothing has come yet; for a while there need not be a speed.
    pub(crate) fn begin(grace: Duration) -> Self {
        Self { began: Instant::now(), grace, bytes: 0 }
    }

    /// So much has come now; an error if that is too slow for a body.
    pub(crate) fn came(&mut self, bytes: usize) -> Result<(), Problem> {
        self.bytes = self.bytes.saturating_add(bytes as u64);
        let late = self.began.elapsed().saturating_sub(self.grace);
        if self.bytes >= late.as_secs().saturating_mul(BODY_BYTES_PER_SECOND_MIN) {
            return Ok(());
        }
        let detail =
            format!("it arrives with less than {BODY_BYTES_PER_SECOND_MIN} bytes a second");
        Err(Problem::new(&problem::BODY_TIMEOUT, detail))
    }
}

/// Why a body does not go on.
#[derive(Debug)]
pub(crate) enum BodyFault {
    /// Nothing came for too long; its sender may be there still.
    Silent(Problem),
    /// The connection broke, or what came is not a body.
    Broken(Problem),
}

impl From<BodyFault> for Problem {
    fn from(fault: BodyFault) -> Self {
        match fault {
            BodyFault::Silent(problem) | BodyFault::Broken(problem) => problem,
        }
    }
}

/// The next part of a body; `None` at its end.
pub(crate) async fn next_data(body: &mut Body, idle: Duration) -> Result<Option<Bytes>, BodyFault> {
    loop {
        let frame = tokio::time::timeout(idle, body.frame()).await.map_err(|_elapsed| {
            let detail = format!("nothing arrived for {} s", idle.as_secs());
            BodyFault::Silent(Problem::new(&problem::BODY_TIMEOUT, detail))
        })?;
        match frame {
            None => return Ok(None),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
            Some(Err(error)) => {
                let detail = format!("the body broke off: {error}");
                return Err(BodyFault::Broken(Problem::new(&problem::INVALID_REQUEST, detail)));
            }
        }
    }
}

/// Reads a JSON object of type `T` from a whole body; all faults are reported at once.
pub(crate) fn read_json<'a, T>(
    body: &'a [u8],
    read: impl FnOnce(&mut Reader<'a>) -> Read<T>,
) -> Result<T, Problem> {
    let mut reader = Reader::new(body)?;
    let value = read(&mut reader)?;
    let faults = reader.finish()?;
    if faults.is_empty() { Ok(value) } else { Err(Problem::faults(faults)) }
}
