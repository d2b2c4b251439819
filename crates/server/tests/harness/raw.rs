//! Requests as bytes: what no well-behaved client would send.

use std::io;

use reqwest::Method;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::client::{Answer, Client};

/// Opens a connection to the server.
pub(crate) async fn connect(client: &Client) -> io::Result<TcpStream> {
    TcpStream::connect(address(client)).await
}

fn address(client: &Client) -> String {
    client.url.trim_start_matches("http://").to_owned()
}

/// The head of a request that closes its connection.
pub(crate) fn head(
    client: &Client,
    method: &Method,
    path: &str,
    headers: &[(&str, String)],
) -> String {
    let host = address(client);
    let mut head = format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n");
    for (name, value) in headers {
        head += name;
        head += ": ";
        head += value;
        head += "\r\n";
    }
    head.push_str("\r\n");
    head
}

/// Sends a whole request and reads the answer to its end.
pub(crate) async fn send(
    client: &Client,
    method: &Method,
    path: &str,
    headers: &[(&str, String)],
    body: &[u8],
) -> io::Result<Answer> {
    let mut headers = headers.to_vec();
    headers.push(("content-length", body.len().to_string()));
    let head = head(client, method, path, &headers);
    exchange(client, &head, body).await
}

/// Sends a head and what there is of a body, and reads the answer to its end.
pub(crate) async fn exchange(client: &Client, head: &str, body: &[u8]) -> io::Result<Answer> {
    let mut stream = connect(client).await?;
    let mut text = Vec::new();
    let (mut reader, mut writer) = stream.split();
    let sending = async {
        // The server may answer and close before it has read everything.
        let sent = async {
            writer.write_all(head.as_bytes()).await?;
            writer.write_all(body).await
        };
        drop(sent.await);
    };
    let (received, ()) = tokio::join!(reader.read_to_end(&mut text), sending);
    if text.is_empty() {
        received?;
    }
    answer(&text, head.lines().next().unwrap_or_default())
}

/// An answer out of its bytes.
pub(crate) fn answer(text: &[u8], request: &str) -> io::Result<Answer> {
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let end = text.windows(4).position(|four| four == b"\r\n\r\n");
    let end = end.ok_or_else(|| bad("the answer has no head"))?;
    let head = String::from_utf8_lossy(&text[..end]).into_owned();
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let mut headers = HeaderMap::new();
    for line in lines {
        let (name, value) = line.split_once(": ").unwrap_or((line, ""));
        let name: HeaderName = name.parse().map_err(|_bad| bad("a header's name"))?;
        headers.insert(name, HeaderValue::from_str(value).map_err(|_bad| bad("a header"))?);
    }
    let body = &text[end + 4..];
    let is_chunked = headers.get("transfer-encoding").is_some_and(|value| value == "chunked");
    let body = if is_chunked { unchunk(body).ok_or_else(|| bad("chunks"))? } else { body.to_vec() };
    let status = status.ok_or_else(|| bad("the answer has no status"))?;
    Ok(Answer::new(status, headers, body, request))
}

fn unchunk(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut whole = Vec::new();
    loop {
        let end = rest.windows(2).position(|two| two == b"\r\n")?;
        let size = std::str::from_utf8(&rest[..end]).ok()?;
        let size = usize::from_str_radix(size, 16).ok()?;
        if size == 0 {
            return Some(whole);
        }
        whole.extend_from_slice(rest.get(end + 2..end + 2 + size)?);
        rest = rest.get(end + 4 + size..)?;
    }
}
