//! One HTTP client of a running server; every failure says what was being done.

use std::error::Error;
use std::net::IpAddr;
use std::time::Duration;

use arrwdb_engine::embed::http::{HttpOptions, ProxyUse, http_client};
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, RequestBuilder, Response, Url};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::args::ServerArgs;
use super::error::CliError;

/// The longest silence in an answer: embedding a long document on a busy machine takes minutes.
const READ_TIMEOUT: Duration = Duration::from_mins(10);

/// The most of an error's body that is read.
const ERROR_BYTES_MAX: usize = 64 << 10;

/// The most of an answer that is read whole.
const ANSWER_BYTES_MAX: usize = 1 << 30;

/// A server and how to talk to it; cloning shares the connections.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    http: reqwest::Client,
    server: Url,
    headers: HeaderMap,
}

impl Client {
    /// A client of the server that `args` names; connects to nothing yet.
    pub(crate) fn new(args: &ServerArgs) -> Result<Client, CliError> {
        let bad = |reason: String| CliError::ServerUrl { server: args.server.clone(), reason };
        let mut server = Url::parse(&args.server).map_err(|error| bad(error.to_string()))?;
        if !matches!(server.scheme(), "http" | "https") || server.host_str().is_none() {
            return Err(bad("http://HOST:PORT or https://HOST is needed".to_owned()));
        }
        if !server.path().ends_with('/') {
            server.set_path(&format!("{}/", server.path()));
        }
        let mut headers = HeaderMap::new();
        if let Some(key) = &args.api_key {
            let mut value = HeaderValue::from_str(key.trim()).map_err(|_bytes| {
                CliError::Setup("the API key holds unprintable bytes".to_owned())
            })?;
            value.set_sensitive(true);
            headers.insert(HeaderName::from_static("x-api-key"), value);
        }
        let options = HttpOptions {
            read_timeout: READ_TIMEOUT,
            redirects_max: 0,
            proxy: if is_loopback(&server) { ProxyUse::Never } else { ProxyUse::Environment },
            ..HttpOptions::default()
        };
        let http = http_client(&options).map_err(|error| CliError::Setup(error.to_string()))?;
        Ok(Client { http, server, headers })
    }

    /// The server's URL, without a trailing slash.
    pub(crate) fn server(&self) -> &str {
        self.server.as_str().trim_end_matches('/')
    }

    /// A request to `path`, which has no leading slash.
    pub(crate) fn request(&self, method: Method, path: &str) -> Result<RequestBuilder, CliError> {
        let url = self.server.join(path).map_err(|error| CliError::ServerUrl {
            server: self.server.to_string(),
            reason: error.to_string(),
        })?;
        Ok(self.http.request(method, url).headers(self.headers.clone()))
    }

    /// Sends a request and checks its status; `doing` completes "the server refused to ...".
    pub(crate) async fn send(
        &self,
        request: RequestBuilder,
        doing: &str,
    ) -> Result<Response, CliError> {
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status().as_u16();
        let body = body(response, ERROR_BYTES_MAX).await.unwrap_or_default();
        Err(CliError::Refused { doing: doing.to_owned(), status, detail: refusal(&body) })
    }

    /// Sends a request and reads its answer as JSON.
    pub(crate) async fn json<T: DeserializeOwned>(
        &self,
        request: RequestBuilder,
        doing: &str,
    ) -> Result<T, CliError> {
        let response = self.send(request, doing).await?;
        let answer = |reason: String| CliError::Answer { doing: doing.to_owned(), reason };
        let body = body(response, ANSWER_BYTES_MAX).await.map_err(answer)?;
        serde_json::from_slice(&body).map_err(|error| answer(error.to_string()))
    }

    fn unreachable(&self, error: &reqwest::Error) -> CliError {
        CliError::Unreachable { server: self.server().to_owned(), reason: deepest(error) }
    }
}

/// What a transport error comes down to: the innermost cause says it best.
pub(crate) fn deepest(error: &dyn Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

fn is_loopback(server: &Url) -> bool {
    let host = server.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The body of `response`, at most `bytes_max` of it.
async fn body(mut response: Response, bytes_max: usize) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(|error| deepest(&error))? {
        if body.len() + piece.len() > bytes_max {
            return Err(format!("longer than {bytes_max} bytes"));
        }
        body.extend_from_slice(&piece);
    }
    Ok(body)
}

/// What a problem document says, in one line.
pub(crate) fn refusal(body: &[u8]) -> String {
    let Ok(problem) = serde_json::from_slice::<Value>(body) else {
        let text = String::from_utf8_lossy(body);
        let text = text.trim();
        return if text.is_empty() { "no reason given".to_owned() } else { text.to_owned() };
    };
    let said = ["detail", "error", "title"].iter().find_map(|key| problem.get(key)?.as_str());
    let mut text = said.unwrap_or("no reason given").to_owned();
    for fault in problem.get("errors").and_then(Value::as_array).into_iter().flatten() {
        let part = |key: &str| fault.get(key).and_then(Value::as_str).unwrap_or_default();
        text.extend(["; ", part("pointer"), ": ", part("detail")]);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_one_line_with_every_fault() {
        let body = br#"{"detail":"bad","errors":[{"pointer":"/k","detail":"too big"}]}"#;
        assert_eq!(refusal(body), "bad; /k: too big");
        assert_eq!(refusal(b"Internal Server Error"), "Internal Server Error");
        assert_eq!(refusal(b""), "no reason given");
    }

    #[test]
    fn only_an_http_url_is_a_server() {
        let client =
            |server: &str| Client::new(&ServerArgs { server: server.to_owned(), api_key: None });
        for bad in ["", "localhost:8000", "ftp://x", "http://"] {
            assert!(client(bad).is_err(), "{bad}");
        }
        assert_eq!(client("http://h:1/base").unwrap().server(), "http://h:1/base");
    }
}
