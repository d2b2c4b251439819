//! What jobs wrote, to be fetched: whole, or a range of its bytes, so that a download that broke off goes
//! on where it was.

use std::ops::RangeInclusive;

use arrwdb_engine::state::JobState;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, Method, StatusCode, header};
use http_range_header::{RangeUnsatisfiableError, parse_range_header};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncSeekExt};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::jobs::job_id;
use crate::app::App;
use crate::extract::TextPath;
use crate::jobs::Format;
use crate::limits::ANSWER_PIECE_BYTES;
use crate::openapi::{RangeErrors, ReadErrors};
use crate::principal::Principal;
use crate::problem::{self, Problem};

/// Routes whose time has no bound.
pub(super) fn long_routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(download))
}

/// What an export wrote, until it expires. Its bytes never change and are sent as they are, so that a
/// download can go on where it broke off: with `Range`, and `If-Range` to be sure of the same file.
#[utoipa::path(get, operation_id = "download_export", path = "/jobs/{job_id}/download", tag = "jobs",
    params(
        ("job_id" = String, Path, format = "uuid", description = "The job"),
        ("Range" = Option<String>, Header, description = "One range of bytes, such as `bytes=1000-`; where the file has several of those asked for, and of what is no range, all bytes are sent"),
        ("If-Range" = Option<String>, Header, description = "The `ETag` of what is there already: of another file all bytes are sent"),
    ),
    responses(
        (status = 200, description = "The file, in the format that was asked for", content(
            (Value = "application/x-ndjson"),
            (Value = "application/json"),
            (String = "text/csv"),
        ),
            headers(
                ("ETag" = String, description = "Names these bytes"),
                ("Accept-Ranges" = String, description = "`bytes`"),
            )),
        (status = 206, description = "The range that was asked for", content(
            (String = "application/x-ndjson"),
            (String = "application/json"),
            (String = "text/csv"),
        ),
            headers(
                ("ETag" = String, description = "Names the whole file"),
                ("Accept-Ranges" = String, description = "`bytes`"),
                ("Content-Range" = String, description = "Which bytes these are, of how many"),
            )),
        RangeErrors, ReadErrors))]
async fn download(
    principal: Principal,
    State(app): State<App>,
    TextPath(id): TextPath<String>,
    method: Method,
    asked: HeaderMap,
) -> Result<Response, Problem> {
    let id = job_id(&id)?;
    let (job, _seq) = app.engine().job(principal.tenant, id, None).await?;
    let absent = || {
        let detail = format!("Job {id} has no file, or it expired");
        Problem::new(&problem::NOT_FOUND, detail)
    };
    let JobState::Finished { end, .. } = &job.state else { return Err(absent()) };
    let result: Option<Value> =
        end.result.as_deref().and_then(|result| serde_json::from_str(result).ok());
    let format = result.as_ref().and_then(|result| result.get("format")?.as_str());
    let format = format.and_then(Format::from_name).ok_or_else(absent)?;
    let files = app.job_files().clone();
    let opened = tokio::task::spawn_blocking(move || files.open_export(id, format.name())).await;
    let (file, length) = opened.map_err(|_stopped| absent())?.map_err(|_gone| absent())?;
    // A job that is over writes no more: its id names the bytes.
    let tag = format!("\"{id}\"");
    // Ranges are of GET alone.
    let range = if method == Method::GET { range(&asked, &tag, length) } else { Ok(None) };
    let headers = [
        (header::CONTENT_TYPE, format.media_type().to_owned()),
        (header::CONTENT_DISPOSITION, format!("attachment; filename=\"{id}.{}\"", format.name())),
        (header::ETAG, tag),
        (header::ACCEPT_RANGES, "bytes".to_owned()),
    ];
    match range {
        Ok(range) => Ok((headers, part((file, length), range).await?).into_response()),
        Err(problem) => Ok((content_range(&format!("*/{length}")), problem).into_response()),
    }
}

/// The range of a file of this tag and length that is asked for; nothing where that is all of it: also of
/// several that it has, and of what is no range, which may be passed over (RFC 9110, 14.2).
fn range(
    asked: &HeaderMap,
    tag: &str,
    length: u64,
) -> Result<Option<RangeInclusive<u64>>, Problem> {
    let is_same =
        asked.get(header::IF_RANGE).is_none_or(|known| known.as_bytes() == tag.as_bytes());
    let range = asked.get(header::RANGE).filter(|_range| is_same);
    let Some(range) = range.and_then(|range| range.to_str().ok()) else { return Ok(None) };
    match parse_range_header(range).and_then(|ranges| ranges.validate(length)) {
        Ok(ranges) => Ok(<[_; 1]>::try_from(ranges).ok().map(|[range]| range)),
        Err(RangeUnsatisfiableError::Unsatisfiable) => {
            let detail = format!("the file has {length} bytes");
            Err(Problem::new(&problem::RANGE_NOT_SATISFIABLE, detail).with("length", length))
        }
        Err(_no_range) => Ok(None),
    }
}

fn content_range(range: &str) -> [(HeaderName, String); 1] {
    [(header::CONTENT_RANGE, format!("bytes {range}"))]
}

/// An answer of all bytes of a file, or of a range of them, read piece by piece.
async fn part(
    (file, length): (std::fs::File, u64),
    range: Option<RangeInclusive<u64>>,
) -> Result<Response, Problem> {
    let mut file = tokio::fs::File::from_std(file);
    let (from, count) =
        range.as_ref().map_or((0, length), |it| (*it.start(), it.end() - it.start() + 1));
    file.seek(std::io::SeekFrom::Start(from)).await.map_err(|error| {
        Problem::hidden(&problem::STORAGE, format!("an export cannot be read: {error}"))
    })?;
    let pieces = futures_util::stream::unfold(file.take(count), |mut file| async move {
        let mut piece = bytes::BytesMut::with_capacity(ANSWER_PIECE_BYTES);
        match file.read_buf(&mut piece).await {
            Ok(0) => None,
            Ok(_read) => Some((Ok(piece.freeze()), file)),
            Err(error) => Some((Err(error), file)),
        }
    });
    let body = ([(header::CONTENT_LENGTH, count.to_string())], Body::from_stream(pieces));
    Ok(match range {
        None => body.into_response(),
        Some(range) => {
            let range = content_range(&format!("{}-{}/{length}", range.start(), range.end()));
            (StatusCode::PARTIAL_CONTENT, range, body).into_response()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_of_the_same_file_is_a_part_and_all_else_is_the_whole() {
        let asked = |range: &str, known: Option<&str>| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RANGE, range.parse().unwrap());
            headers.extend(known.map(|known| (header::IF_RANGE, known.parse().unwrap())));
            range_of(&headers)
        };
        for (text, expected) in [
            ("bytes=0-0", 0..=0),
            ("bytes=3-", 3..=9),
            ("bytes=3-99", 3..=9),
            ("bytes=-4", 6..=9),
            ("bytes=-99", 0..=9),
        ] {
            assert_eq!(asked(text, None), Ok(Some(expected.clone())), "{text}");
            assert_eq!(asked(text, Some("\"tag\"")), Ok(Some(expected)), "{text}");
            for other in ["\"gat\"", "W/\"tag\"", "Sun, 06 Nov 1994 08:49:37 GMT"] {
                assert_eq!(asked(text, Some(other)), Ok(None), "{text} of {other}");
            }
        }
        for text in ["bytes=5-3", "bytes=0-1,4-5", "lines=1-2", "bytes=x", "bytes=", "7"] {
            assert_eq!(asked(text, None), Ok(None), "{text}");
        }
        for text in ["bytes=10-", "bytes=10-20", "bytes=-0"] {
            assert_eq!(asked(text, None), Err(416), "{text}");
        }
        assert_eq!(range_of(&HeaderMap::new()), Ok(None));
    }

    /// Of a file of ten bytes, or the status of the refusal.
    fn range_of(headers: &HeaderMap) -> Result<Option<RangeInclusive<u64>>, u16> {
        range(headers, "\"tag\"", 10).map_err(|problem| problem.kind().status)
    }
}
