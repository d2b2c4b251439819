//! What is the same for every answer: request id, time taken, security headers, the body of a
//! problem, one log line, HTTP metrics.

use std::time::Instant;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::app::App;
use crate::limits::REQUEST_ID_CHARS_MAX;
use crate::metrics::HttpCall;
use crate::problem::{self, Problem};

/// Sequence number of a write, or the one that a read must have reached.
pub(crate) const SEQ_HEADER: HeaderName = HeaderName::from_static("x-arrwdb-seq");
/// Echo of the request's id, or a new one.
pub(crate) const ID_HEADER: HeaderName = HeaderName::from_static("x-request-id");
/// Time until the answer's headers were ready.
pub(crate) const TIME_HEADER: HeaderName = HeaderName::from_static("x-response-time");

const SECURITY_HEADERS: [(HeaderName, HeaderValue); 7] = [
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY")),
    (header::X_XSS_PROTECTION, HeaderValue::from_static("1; mode=block")),
    (
        header::STRICT_TRANSPORT_SECURITY,
        HeaderValue::from_static("max-age=31536000; includeSubDomains; preload"),
    ),
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'self'; script-src 'self' 'unsafe-inline'; \
             style-src 'self' 'unsafe-inline'; img-src 'self' data: https:; \
             font-src 'self' data:; connect-src 'self'; frame-ancestors 'none';",
        ),
    ),
    (header::REFERRER_POLICY, HeaderValue::from_static("strict-origin-when-cross-origin")),
    (
        HeaderName::from_static("permissions-policy"),
        HeaderValue::from_static(
            "geolocation=(), microphone=(), camera=(), payment=(), usb=(), magnetometer=(), \
             gyroscope=(), speaker=()",
        ),
    ),
];

/// The outermost layer.
pub(crate) async fn wrap(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let started = Instant::now();
    let id = request_id(request.headers());
    if let Ok(value) = HeaderValue::from_str(&id) {
        request.headers_mut().insert(ID_HEADER, value);
    }
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let call = HttpCall::begin(app.clone(), &request);
    let mut response = next.run(request).await;
    let elapsed = started.elapsed();
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        log_problem(&problem, &id);
        render(&problem, &id, &mut response);
    }
    let status = response.status();
    tracing::debug!(
        request_id = %id, %method, path, status = status.as_u16(),
        milliseconds = elapsed.as_secs_f64() * 1e3, "answered"
    );
    call.end(&response, elapsed);
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(&id) {
        headers.insert(ID_HEADER, value);
    }
    if let Ok(value) = HeaderValue::from_str(&format!("{:.3}s", elapsed.as_secs_f64())) {
        headers.insert(TIME_HEADER, value);
    }
    if app.config().surface.security_headers.is_on() {
        for (name, value) in SECURITY_HEADERS {
            headers.entry(name).or_insert(value);
        }
    }
    response
}

/// The client's id if it is short visible ASCII, else a new one.
fn request_id(headers: &HeaderMap) -> String {
    let given = headers.get(ID_HEADER).and_then(|value| value.to_str().ok());
    let usable = |id: &&str| {
        (1..=REQUEST_ID_CHARS_MAX).contains(&id.len()) && id.chars().all(|c| c.is_ascii_graphic())
    };
    given.filter(usable).map_or_else(|| uuid::Uuid::new_v4().to_string(), str::to_owned)
}

fn log_problem(problem: &Problem, id: &str) {
    let kind = problem.kind();
    let detail = problem.log().unwrap_or_else(|| problem.detail());
    if kind.status >= 500 {
        tracing::error!(request_id = %id, status = kind.status, kind = kind.slug, "{detail}");
    } else {
        tracing::debug!(request_id = %id, status = kind.status, kind = kind.slug, "{detail}");
    }
}

fn render(problem: &Problem, id: &str, response: &mut Response) {
    let body = problem.body(id);
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    // Whatever was said of the body that this one takes the place of.
    headers.remove(header::CONTENT_ENCODING);
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    *response.body_mut() = Body::from(body);
}

/// Refuses requests that are addressed to somebody else, as a page that rebinds its name to this
/// machine would send them.
pub(crate) async fn check_host(State(app): State<App>, request: Request, next: Next) -> Response {
    let allowed = &app.config().surface.allowed_hosts;
    if allowed.is_empty() {
        return next.run(request).await;
    }
    let from_header = request.headers().get(header::HOST).and_then(|value| value.to_str().ok());
    let host = request.uri().authority().map(http::uri::Authority::as_str).or(from_header);
    let name = host.map(host_name).unwrap_or_default();
    if allowed.iter().any(|pattern| host_matches(pattern, name)) {
        return next.run(request).await;
    }
    let detail = format!("requests to {name:?} are not answered here");
    Problem::new(&problem::INVALID_HOST, detail).into_response()
}

/// The name without the port; `[::1]:8000` keeps its brackets.
fn host_name(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        Some(_) | None => host,
    }
}

/// `*.example.org` matches every name below `example.org`.
fn host_matches(pattern: &str, name: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(suffix) if suffix.starts_with('.') => {
            name.len() > suffix.len()
                && name.to_ascii_lowercase().ends_with(&suffix.to_ascii_lowercase())
        }
        Some(_) | None => pattern.eq_ignore_ascii_case(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_could_break_a_log_is_replaced() {
        let with = |value: &'static [u8]| {
            let mut headers = HeaderMap::new();
            headers.insert(ID_HEADER, HeaderValue::from_bytes(value).unwrap());
            request_id(&headers)
        };
        assert_eq!(with(b"abc-1"), "abc-1");
        assert_eq!(with(b"a b").len(), 36);
        assert_eq!(with(b"\xe9").len(), 36);
        assert_eq!(request_id(&HeaderMap::new()).len(), 36);
    }

    #[test]
    fn hosts_match_without_port_and_case() {
        for (pattern, host, matches) in [
            ("localhost", "LocalHost:8000", true),
            ("*.example.org", "api.example.org", true),
            ("*.example.org", "example.org", false),
            ("[::1]", "[::1]:80", true),
            ("a", "b", false),
        ] {
            assert_eq!(host_matches(pattern, host_name(host)), matches, "{pattern} {host}");
        }
    }
}
