//! One JSON call to a remote provider, and what its failure means.
//!
//! Keys travel in one header that is marked sensitive, and are struck from every message.

use std::error::Error as _;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, DATE, HeaderMap, HeaderValue, RETRY_AFTER};
use reqwest::{StatusCode, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::config::Secret;
use crate::error::{EmbedError, OpenError};
use crate::lane::rate_limit_wait;
use crate::models::ProviderKind;
use crate::provider::{CallError, Retry};

/// The most bytes of an answer: 2,048 vectors of 4,096 values written as text are smaller.
const ANSWER_BYTES_MAX: usize = 192 << 20;

/// The most characters of a provider's own words that are passed on.
const DETAIL_CHARS_MAX: usize = 300;

/// The most bytes of a failure's body that are looked at.
const FAILURE_BYTES_MAX: usize = 16 << 10;

/// The longest wait that a provider may ask for.
const RETRY_AFTER_MAX: Duration = Duration::from_hours(1);

/// Where and as whom a provider is called.
#[derive(Debug)]
pub(crate) struct Endpoint {
    http: reqwest::Client,
    url: Url,
    key: Option<Secret>,
    authorization: Option<HeaderValue>,
}

impl Endpoint {
    /// `base` and `path` make the URL; `scheme` stands before the key in the header.
    pub(crate) fn new(
        http: reqwest::Client,
        provider: ProviderKind,
        (base, path): (&str, &str),
        credentials: Option<(&str, &Secret)>,
    ) -> Result<Self, OpenError> {
        let bad = |reason: String| OpenError::BaseUrl { provider, reason };
        let url = Url::parse(&format!("{}/{path}", base.trim_end_matches('/')))
            .map_err(|error| bad(error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(bad(format!("its scheme is {:?}", url.scheme())));
        }
        let authorization = credentials
            .map(|(scheme, key)| HeaderValue::try_from(format!("{scheme} {}", key.expose())))
            .transpose()
            .map_err(|_unprintable| OpenError::Key { provider })?
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

    /// Sends `body` and reads the answer.
    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        body: &impl Serialize,
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
        if !status.is_success() {
            // What the failure says about itself is a courtesy: half of it will do.
            let body = read(answer, FAILURE_BYTES_MAX).await.unwrap_or_default();
            return Err(self.refusal(status, &headers, &body));
        }
        let body = read(answer, ANSWER_BYTES_MAX).await.map_err(|error| match error {
            ReadError::Transport(error) => self.transport(error),
            ReadError::TooLarge => {
                let detail = format!("its answer is larger than {ANSWER_BYTES_MAX} bytes");
                failed(Some(status), detail, Retry::Never)
            }
        })?;
        serde_json::from_slice(&body).map_err(|error| {
            let detail = format!("its answer is not what was expected: {error}");
            failed(Some(status), self.clean(&detail), Retry::Never)
        })
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
    fn refusal(&self, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> CallError {
        let asked = retry_after(headers);
        let later = asked.map_or(Retry::Backoff, Retry::After);
        if status == StatusCode::TOO_MANY_REQUESTS {
            let retry_after = rate_limit_wait(asked);
            return CallError { error: EmbedError::RateLimited { retry_after }, retry: later };
        }
        let retry = match status.as_u16() {
            408 | 500 | 502 | 503 | 504 | 529 => later,
            // Cohere's 498 is a text it blocked.
            400 | 413 | 422 | 498 => Retry::Apart,
            _ => Retry::Never,
        };
        let said = self.clean(&message(body));
        let reason = status.canonical_reason().unwrap_or("no reason");
        let detail = if said.is_empty() { reason.to_owned() } else { format!("{reason}: {said}") };
        failed(Some(status), detail, retry)
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

enum ReadError {
    Transport(reqwest::Error),
    TooLarge,
}

async fn read(mut answer: reqwest::Response, bytes_max: usize) -> Result<Vec<u8>, ReadError> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(ReadError::Transport)? {
        if body.len() + chunk.len() > bytes_max {
            return Err(ReadError::TooLarge);
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
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

    #[test]
    fn a_message_never_holds_the_key() {
        let key = Secret::new("sk-very-secret");
        let http = crate::http::http_client(&crate::http::HttpOptions::default()).expect("client");
        let endpoint = Endpoint::new(
            http,
            ProviderKind::OpenAi,
            ("http://localhost/v1/", "embeddings"),
            Some(("Bearer", &key)),
        )
        .expect("endpoint");
        assert_eq!(endpoint.url.as_str(), "http://localhost/v1/embeddings");
        assert_eq!(endpoint.clean("bad key\nsk-very-secret!"), "bad key ***!");
        assert!(!format!("{endpoint:?}").contains("sk-very-secret"));
    }
}
