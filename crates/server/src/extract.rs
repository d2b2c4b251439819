//! What handlers take: ids from the path, values from the query string, bodies in full.
//!
//! Every refusal is a [`Problem`]; a body is bounded by size and by the time between its parts.

use std::str::FromStr;
use std::time::Duration;

use arrwdb_engine::state::{DocumentId, LibraryId, ParseIdError, Seq};
use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, RawPathParams, Request};
use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH};
use http::request::Parts;
use http_body_util::BodyExt;

use crate::app::App;
use crate::json::{Read, Reader, push_token};
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

async fn path_id<S, T>(parts: &mut Parts, state: &S, name: &str) -> Result<T, Problem>
where
    S: Send + Sync,
    T: FromStr<Err = ParseIdError>,
{
    let params = RawPathParams::from_request_parts(parts, state)
        .await
        .map_err(|error| Problem::new(&problem::INVALID_REQUEST, error.body_text()))?;
    let text = params.iter().find(|(key, _)| *key == name).map_or("", |(_, value)| value);
    text.parse().map_err(|error: ParseIdError| {
        let mut pointer = "/path".to_owned();
        push_token(&mut pointer, name);
        Problem::field(pointer, error.to_string())
    })
}

/// The query string as pairs; the last of a repeated name counts.
#[derive(Debug, Clone, Default)]
pub(crate) struct QueryPairs(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for QueryPairs {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let axum::extract::Query(pairs) =
            axum::extract::Query::<Vec<(String, String)>>::from_request_parts(parts, state)
                .await
                .map_err(|error| Problem::new(&problem::INVALID_REQUEST, error.body_text()))?;
        Ok(Self(pairs))
    }
}

impl QueryPairs {
    /// The value of a parameter; an empty one counts as absent.
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().rev().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// A parameter that is `true` or `false`.
    pub(crate) fn switch(&self, name: &str, default: bool) -> Result<bool, Problem> {
        match self.text(name).map(str::to_ascii_lowercase).as_deref() {
            None => Ok(default),
            Some("true" | "1" | "yes" | "on") => Ok(true),
            Some("false" | "0" | "no" | "off") => Ok(false),
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

/// The state a read must have reached: `?min_seq=` or the header `X-Arrwdb-Seq`; the parameter
/// wins.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MinSeq(pub(crate) Option<Seq>);

impl<S: Send + Sync> FromRequestParts<S> for MinSeq {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let pairs = QueryPairs::from_request_parts(parts, state).await?;
        let header = parts.headers.get(crate::envelope::SEQ_HEADER);
        let header = header.map(|value| value.to_str().unwrap_or("?").trim().to_owned());
        let (name, text) = match (pairs.text("min_seq"), header) {
            (Some(text), _) => ("/query/min_seq", text.to_owned()),
            (None, Some(text)) => ("/header/X-Arrwdb-Seq", text),
            (None, None) => return Ok(Self(None)),
        };
        let number = text.parse::<u64>().map_err(|_not_a_number| {
            Problem::field(name, "must be a sequence number as given by X-Arrwdb-Seq")
        })?;
        Ok(Self(Some(Seq::new(number))))
    }
}

/// A whole body, at most `MAX_REQUEST_SIZE` bytes.
#[derive(Debug, Clone)]
pub(crate) struct WholeBody(pub(crate) Bytes);

impl FromRequest<App> for WholeBody {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        check_encoding(request.headers())?;
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
        read_body(request.into_body(), max, idle).await.map(Self)
    }
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

/// What is read and thrown away of a body that is refused, at most.
const DISCARD_BYTES_MAX: usize = 16 << 20;
/// How long that may take.
const DISCARD_TIME_MAX: Duration = Duration::from_secs(2);

/// Reads some of what is left of a refused body. A client that is still sending when the connection
/// is closed gets a reset in place of the answer.
async fn discard(body: &mut Body) {
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

async fn read_body(mut body: Body, max: usize, idle: Duration) -> Result<Bytes, Problem> {
    let mut whole: Option<Bytes> = None;
    let mut parts = BytesMut::new();
    while let Some(data) = next_data(&mut body, idle).await? {
        let size = parts.len() + whole.as_ref().map_or(0, Bytes::len) + data.len();
        if size > max {
            discard(&mut body).await;
            return Err(too_large(max, size as u64));
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
    Ok(whole.unwrap_or_else(|| parts.freeze()))
}

/// The next part of a body; `None` at its end.
pub(crate) async fn next_data(body: &mut Body, idle: Duration) -> Result<Option<Bytes>, Problem> {
    loop {
        let frame = tokio::time::timeout(idle, body.frame()).await.map_err(|_elapsed| {
            Problem::new(
                &problem::BODY_TIMEOUT,
                format!("nothing arrived for {} s", idle.as_secs()),
            )
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
                return Err(Problem::new(&problem::INVALID_REQUEST, detail));
            }
        }
    }
}

/// Reads a JSON object of type `T` from a whole body; all faults are reported at once.
pub(crate) fn read_json<T>(
    body: &[u8],
    read: impl FnOnce(&mut Reader<'_>) -> Read<T>,
) -> Result<T, Problem> {
    let mut reader = Reader::new(body)?;
    let value = read(&mut reader)?;
    let faults = reader.finish()?;
    if faults.is_empty() { Ok(value) } else { Err(Problem::faults(faults)) }
}
