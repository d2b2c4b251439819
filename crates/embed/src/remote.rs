//! One JSON call to a remote provider, and what its failure means.
//!
//! Keys travel in one header that is marked sensitive, and are struck from every message.

use std::error::Error as _;
use std::fmt;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, DATE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{StatusCode, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::config::Secret;
use crate::error::{EmbedError, OpenError};
use crate::models::{DIMENSION_MAX, ProviderKind};
use crate::picture::is_data_url;
use crate::provider::{CallError, Retry};

/// The most bytes of an answer: 2,048 vectors of 4,096 values written as text are smaller.
const ANSWER_BYTES_MAX: usize = 192 << 20;

/// The most characters of a provider's own words that are passed on.
const DETAIL_CHARS_MAX: usize = 300;

/// The most bytes of a failure's body that are looked at.
const FAILURE_BYTES_MAX: usize = 16 << 10;

/// How OpenAI calls an account without means.
const SPENT: &str = "insufficient_quota";

/// Bytes of a value written as JSON, the space around it included.
const VALUE_BYTES_MAX: usize = 32;

/// Bytes of an answer that are parsed without a detour: a few milliseconds.
const PARSED_AT_ONCE_BYTES_MAX: usize = 256 << 10;

/// When a caller is told to come back if the provider refused for its rate and gave no time.
const RATE_LIMIT_RETRY_AFTER: Duration = Duration::from_secs(5);

/// The longest wait that a provider may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_hours(1);

/// Where and as whom a provider is called.
pub(crate) struct Endpoint {
    http: reqwest::Client,
    /// May hold credentials: not to be shown.
    url: Url,
    key: Option<Secret>,
    authorization: Option<HeaderValue>,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Endpoint").field("host", &self.host()).finish_non_exhaustive()
    }
}

/// Why nobody can be called.
pub(crate) enum Unusable {
    /// The base URL is not an absolute `http` or `https` URL, for this reason.
    BaseUrl(String),
    /// The key cannot be sent in a header.
    Key,
}

impl Endpoint {
    /// As [`Endpoint::at`], of an embedding provider.
    pub(crate) fn new(
        http: reqwest::Client,
        provider: ProviderKind,
        place: (&str, &str),
        credentials: Option<(&str, &Secret)>,
    ) -> Result<Self, OpenError> {
        Self::at(http, place, credentials).map_err(|unusable| match unusable {
            Unusable::BaseUrl(reason) => OpenError::BaseUrl { provider, reason },
            Unusable::Key => OpenError::Key { provider },
        })
    }

    /// `base` and `path` make the URL, a query of `base` stays behind them; `scheme` stands before
    /// the key in the header.
    pub(crate) fn at(
        http: reqwest::Client,
        (base, path): (&str, &str),
        credentials: Option<(&str, &Secret)>,
    ) -> Result<Self, Unusable> {
        let bad = Unusable::BaseUrl;
        let mut url = Url::parse(base.trim()).map_err(|error| bad(error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(bad(format!("its scheme is {:?} instead of http or https", url.scheme())));
        }
        if credentials.is_some() && (!url.username().is_empty() || url.password().is_some()) {
            // Both would be sent as the one header there is.
            let reason = "it holds a user name or password beside the key: leave one of them out";
            return Err(bad(reason.to_owned()));
        }
        url.set_path(&format!("{}/{path}", url.path().trim_end_matches('/')));
        url.set_fragment(None);
        let authorization = credentials
            .map(|(scheme, key)| HeaderValue::try_from(format!("{scheme} {}", key.expose())))
            .transpose()
            .map_err(|_unprintable| Unusable::Key)?
            .map(|mut value| {
                value.set_sensitive(true);
                value
            });
        let key = credentials.map(|(_, key)| key.clone());
        Ok(Endpoint { http, url, key, authorization })
    }

    /// The host that is called.
    pub(crate) fn host(&self) -> &str {
        self.url.host_str().unwrap_or_default()
    }

    /// Where it is called, without credentials and query.
    pub(crate) fn address(&self) -> String {
        let port = self.url.port().map_or_else(String::new, |port| format!(":{port}"));
        format!("{}://{}{port}{}", self.url.scheme(), self.host(), self.url.path())
    }

    /// Sends `body`, which holds `texts`, and reads the answer.
    pub(crate) async fn post<T: DeserializeOwned + Send + 'static>(
        &self,
        body: &impl Serialize,
        texts: &[String],
    ) -> Result<T, CallError> {
        self.post_within(body, answer_bytes_max(texts)).await
    }

    /// Sends `body`, which holds `pictures`, and reads the answer. One that is refused by itself is unfit.
    /// What is said of a picture's link is kept from callers and logs: it may repeat the link, and tell
    /// of a network that the caller does not see.
    pub(crate) async fn post_pictures<T: DeserializeOwned + Send + 'static>(
        &self,
        body: &impl Serialize,
        (provider, pictures): (ProviderKind, &[String]),
    ) -> Result<T, CallError> {
        // Nobody sends a picture back.
        let bytes_max = answer_bytes_max(&vec![String::new(); pictures.len()]);
        let answer = self.post_within(body, bytes_max).await;
        let CallError { error, retry } = match answer {
            Ok(answer) => return Ok(answer),
            Err(failed) => failed,
        };
        let EmbedError::Provider { status: Some(status @ 400..), mut detail } = error else {
            return Err(CallError { error, retry });
        };
        if pictures.iter().any(|url| !is_data_url(url)) {
            let status = StatusCode::from_u16(status).ok();
            let reason = status.and_then(|status| status.canonical_reason());
            reason.unwrap_or("no reason").clone_into(&mut detail);
        }
        if retry == Retry::Apart && pictures.len() == 1 {
            return Err(CallError::fatal(EmbedError::PictureUnfit { provider, detail }));
        }
        Err(CallError { error: EmbedError::Provider { status: Some(status), detail }, retry })
    }

    /// Sends `body`, and reads an answer of at most `bytes_max` bytes.
    pub(crate) async fn post_within<T: DeserializeOwned + Send + 'static>(
        &self,
        body: &impl Serialize,
        bytes_max: usize,
    ) -> Result<T, CallError> {
        let body = serde_json::to_vec(body)
            .map_err(|error| failed(None, format!("request not written: {error}"), Retry::Never))?;
        let mut request =
            self.http.post(self.url.clone()).header(CONTENT_TYPE, "application/json").body(body);
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        let answer = request.send().await.map_err(|error| self.transport(error))?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let moved = self.moved(answer.url());
        if !status.is_success() {
            // What the failure says about itself is a courtesy: half of it will do.
            let (Ok(body) | Err(ReadError { body, .. })) = read(answer, FAILURE_BYTES_MAX).await;
            return Err(self.refusal(status, &headers, &body, &moved));
        }
        let body = read(answer, bytes_max).await.map_err(|error| {
            if let Some(cause) = error.cause {
                return self.transport(cause);
            }
            let detail = format!("its answer is larger than {bytes_max} bytes{moved}");
            failed(Some(status), detail, Retry::Never)
        })?;
        parse(body).await.map_err(|error| {
            let detail = format!("its answer is not what was expected: {error}");
            failed(Some(status), self.clean(&detail) + &moved, Retry::Never)
        })
    }

    /// What to say about a call that was redirected; nothing if it was not. Redirects that turn a
    /// call into the fetch of a page fail in ways that say nothing about their cause.
    fn moved(&self, to: &Url) -> String {
        let place = |url: &Url| {
            let host = url.host_str().unwrap_or_default().to_owned();
            (url.scheme().to_owned(), host, url.port_or_known_default(), url.path().to_owned())
        };
        if place(&self.url) == place(to) {
            return String::new();
        }
        let (scheme, host, _, path) = place(to);
        format!(
            " (the call was redirected to {scheme}://{host}{path}: set the base URL to where the \
             service is)"
        )
    }

    /// The call did not come through.
    fn transport(&self, error: reqwest::Error) -> CallError {
        let retry =
            if error.is_builder() || error.is_redirect() { Retry::Never } else { Retry::Backoff };
        // A URL may hold credentials.
        let error = error.without_url();
        let mut detail = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            detail = format!("{detail}: {cause}");
            source = cause.source();
        }
        failed(None, self.clean(&detail), retry)
    }

    /// The provider answered that it would not.
    fn refusal(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        body: &[u8],
        moved: &str,
    ) -> CallError {
        let asked = retry_after(headers);
        let later = asked.map_or(Retry::Backoff, Retry::After);
        // A quota that is used up is told by the same status, and no waiting helps.
        if status == StatusCode::TOO_MANY_REQUESTS && !is_spent(body) {
            let retry_after = asked.unwrap_or(RATE_LIMIT_RETRY_AFTER);
            return CallError { error: EmbedError::RateLimited { retry_after }, retry: later };
        }
        let retry = match status.as_u16() {
            // Not implemented, HTTP version, and a network that wants a login: they stay.
            501 | 505 | 511 => Retry::Never,
            408 | 425 | 500..=599 => later,
            // Cohere's 498 is a text it blocked.
            400 | 413 | 422 | 498 => Retry::Apart,
            _ => Retry::Never,
        };
        let said = self.clean(&message(body));
        let reason = status.canonical_reason().unwrap_or("no reason");
        let detail = if said.is_empty() { reason.to_owned() } else { format!("{reason}: {said}") };
        failed(Some(status), detail + moved, retry)
    }

    /// Printable, short and without the key.
    fn clean(&self, text: &str) -> String {
        let struck = match &self.key {
            Some(key) if !key.expose().is_empty() => text.replace(key.expose(), "***"),
            _ => text.to_owned(),
        };
        let printable = struck.chars().map(|c| if c.is_control() { ' ' } else { c });
        let mut short: String = printable.take(DETAIL_CHARS_MAX).collect();
        short.truncate(short.trim_end().len());
        short
    }
}

fn failed(status: Option<StatusCode>, detail: String, retry: Retry) -> CallError {
    let status = status.map(|status| status.as_u16());
    CallError { error: EmbedError::Provider { status, detail }, retry }
}

/// An answer that was not read to its end.
struct ReadError {
    /// What came of it, at most as much as was asked for.
    body: Vec<u8>,
    /// `None` if it is larger than was asked for.
    cause: Option<reqwest::Error>,
}

async fn read(mut answer: reqwest::Response, bytes_max: usize) -> Result<Vec<u8>, ReadError> {
    let mut body = Vec::new();
    loop {
        match answer.chunk().await {
            Ok(None) => return Ok(body),
            Ok(Some(chunk)) => {
                let room = bytes_max - body.len();
                body.extend_from_slice(chunk.get(..room).unwrap_or(&chunk[..]));
                if chunk.len() > room {
                    return Err(ReadError { body, cause: None });
                }
            }
            Err(error) => return Err(ReadError { body, cause: Some(error) }),
        }
    }
}

/// The most bytes of an answer for `texts`, which some providers repeat: so that no server, by
/// error or by intent, takes much more memory than its vectors need.
fn answer_bytes_max(texts: &[String]) -> usize {
    let vector = DIMENSION_MAX as usize * VALUE_BYTES_MAX;
    // A byte of a text may be written as six (`\u0000`).
    let bytes = texts.iter().map(|text| vector.saturating_add(text.len().saturating_mul(6)));
    bytes.fold(1 << 20, usize::saturating_add).min(ANSWER_BYTES_MAX)
}

/// Parses an answer, a large one on a thread that may take its time.
async fn parse<T: DeserializeOwned + Send + 'static>(body: Vec<u8>) -> Result<T, String> {
    let is_small = body.len() <= PARSED_AT_ONCE_BYTES_MAX;
    let parse = move || serde_json::from_slice(&body).map_err(|error| error.to_string());
    if is_small {
        return parse();
    }
    tokio::task::spawn_blocking(parse).await.map_err(|error| error.to_string())?
}

/// Whether a refusal for too many requests is one for an account without means.
fn is_spent(body: &[u8]) -> bool {
    let Ok(value) = serde_json::from_slice::<serde_json::Value>(body) else { return false };
    ["/error/code", "/error/type"]
        .into_iter()
        .any(|pointer| value.pointer(pointer).and_then(|code| code.as_str()) == Some(SPENT))
}

/// The words in a failure's body: `message`, `error`, `error.message` or `detail` of a JSON
/// object, else the body itself.
fn message(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let Ok(value) = serde_json::from_slice::<serde_json::Value>(body) else {
        return text.into_owned();
    };
    ["/error/message", "/message", "/error", "/detail"]
        .into_iter()
        .find_map(|pointer| value.pointer(pointer)?.as_str())
        .map_or_else(|| text.into_owned(), str::to_owned)
}

/// The wait asked for by `Retry-After`: seconds, or a date. A date is taken relative to the
/// answer's own `Date`, so that no clock of ours has to agree with the provider's.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let asked = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = asked.parse::<u64>() {
        return Some(Duration::from_secs(seconds).min(RETRY_AFTER_MAX));
    }
    let date = |text: &str| jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok();
    let until = date(asked)?;
    let now = date(headers.get(DATE)?.to_str().ok()?)?;
    let wait = until.duration_since(now);
    Some(Duration::try_from(wait).unwrap_or(Duration::ZERO).min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|&(name, value)| {
                (name.parse().expect("header name"), HeaderValue::from_static(value))
            })
            .collect()
    }

    #[test]
    fn retry_after_is_read_as_seconds_and_as_a_date() {
        let check = |pairs: &[_], seconds: Option<u64>| {
            assert_eq!(retry_after(&headers(pairs)), seconds.map(Duration::from_secs), "{pairs:?}");
        };
        check(&[("retry-after", "7")], Some(7));
        check(&[("retry-after", " 0 ")], Some(0));
        check(&[("retry-after", "999999999999")], Some(3_600));
        check(&[("retry-after", "soon")], None);
        check(&[("retry-after", "-1")], None);
        check(&[], None);
        let date = ("date", "Fri, 20 Nov 2026 08:00:00 GMT");
        check(&[("retry-after", "Fri, 20 Nov 2026 08:00:30 GMT"), date], Some(30));
        check(&[("retry-after", "Fri, 20 Nov 2026 07:00:00 GMT"), date], Some(0));
        check(&[("retry-after", "Fri, 20 Nov 2026 08:00:30 GMT")], None);
    }

    #[test]
    fn the_providers_own_words_are_found() {
        assert_eq!(message(br#"{"message":"invalid api token"}"#), "invalid api token");
        assert_eq!(message(br#"{"error":{"message":"too long","code":1}}"#), "too long");
        assert_eq!(message(br#"{"error":"model not found"}"#), "model not found");
        assert_eq!(message(b"<html>Bad gateway"), "<html>Bad gateway");
        assert_eq!(message(b""), "");
    }

    fn endpoint(base: &str, key: Option<&Secret>) -> Result<Endpoint, OpenError> {
        let http = crate::http::http_client(&crate::http::HttpOptions::default()).expect("client");
        let credentials = key.map(|key| ("Bearer", key));
        Endpoint::new(http, ProviderKind::OpenAi, (base, "embeddings"), credentials)
    }

    #[test]
    fn a_base_url_may_have_a_path_a_query_and_slashes() {
        let check = |base: &str, expected: &str| {
            assert_eq!(endpoint(base, None).expect("endpoint").url.as_str(), expected, "{base}");
        };
        check("http://h", "http://h/embeddings");
        check(" http://h/ ", "http://h/embeddings");
        check("http://h:81/a%20b/v1//", "http://h:81/a%20b/v1/embeddings");
        check("https://h/v1?api-version=2024-06", "https://h/v1/embeddings?api-version=2024-06");
        check("https://h/v1#top", "https://h/v1/embeddings");
        assert!(matches!(endpoint("data:x", None), Err(OpenError::BaseUrl { .. })));
    }

    #[test]
    fn a_password_in_a_base_url_is_not_shown_and_excludes_a_key() {
        let base = "http://user:hunter2@h/v1";
        let alone = endpoint(base, None).expect("endpoint");
        assert!(!format!("{alone:?}").contains("hunter2"));
        assert_eq!(alone.address(), "http://h/v1/embeddings");
        let refused = endpoint(base, Some(&Secret::new("key"))).expect_err("two credentials");
        assert!(!refused.to_string().contains("hunter2"), "{refused}");
    }

    #[test]
    fn an_answer_has_room_for_its_vectors_and_little_else() {
        let texts = |count| vec!["x".to_owned(); count];
        assert!(answer_bytes_max(&texts(1)) < 2 << 20);
        assert!(answer_bytes_max(&texts(96)) > 96 * 4_096 * 24);
        assert_eq!(answer_bytes_max(&texts(1 << 20)), ANSWER_BYTES_MAX);
    }

    #[test]
    fn a_message_never_holds_the_key() {
        let key = Secret::new("sk-very-secret");
        let endpoint = endpoint("http://localhost/v1/", Some(&key)).expect("endpoint");
        assert_eq!(endpoint.address(), "http://localhost/v1/embeddings");
        assert_eq!(endpoint.clean("bad key\nsk-very-secret!"), "bad key ***!");
        assert!(!format!("{endpoint:?}").contains("sk-very-secret"));
    }
}
