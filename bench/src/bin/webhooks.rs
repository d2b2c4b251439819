//! Webhooks: deliveries a second to receivers that are quick, beside receivers that hang.
//!
//! `cargo xtask bench webhooks -- [DOCUMENTS]`
//!
//! The webhooks are paused while the documents are written; then they are made active, and the time
//! from the first delivery to the last is taken. Receivers check the order of each library.
#![expect(clippy::print_stdout, reason = "printing figures is what it is for")]

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arrwdb_bench::Outcome;
use arrwdb_bench::server::{Server, cpu_seconds, program};
use serde_json::{Value, json};

const HANGING: usize = 10;
/// The longest that a scenario may take.
const LONGEST: Duration = Duration::from_mins(5);

fn main() -> Outcome<()> {
    let documents: u64 = std::env::args().nth(1).map_or(Ok(20_000), |text| text.parse())?;
    for (hooks, libraries, parallel) in
        [(1, 1, false), (1, 8, false), (1, 1, true), (10, 1, false), (10, 8, false)]
    {
        run(documents, (hooks, libraries, parallel))?;
    }
    Ok(())
}

/// What came.
#[derive(Default)]
struct Came {
    count: u64,
    first: Option<Instant>,
    last: Option<Instant>,
    /// The last document of each library that each webhook was told of.
    places: HashMap<(String, String), u64>,
    disorder: u64,
}

#[derive(Default)]
struct Receiver {
    came: Mutex<Came>,
    moved: Condvar,
}

fn run(documents: u64, (hooks, libraries, parallel): (usize, u64, bool)) -> Outcome<()> {
    let settings = [
        ("EMBEDDING_PROVIDER", "cohere"),
        ("COHERE_API_KEY", "unused"),
        ("LOG_LEVEL", "WARNING"),
        ("WEBHOOK_ALLOW_PRIVATE", "true"),
    ];
    let server = Server::start(&program()?, None, &settings)?;
    let receiver = Arc::new(Receiver::default());
    let quick = listen(receiver.clone(), true)?;
    let hanging = listen(receiver.clone(), false)?;
    let mut ids = Vec::new();
    for n in 0..hooks {
        ids.push(hook(&server, &format!("http://{quick}/{n}"), parallel)?);
    }
    for n in 0..HANGING {
        ids.push(hook(&server, &format!("http://{hanging}/{n}"), false)?);
    }
    ids.iter().try_for_each(|id| set_status(&server, id, "paused"))?;
    let each = documents / libraries;
    for _library in 0..libraries {
        write(&server, each)?;
    }
    let cpu = cpu_seconds(server.pid())?;
    ids.iter().rev().try_for_each(|id| set_status(&server, id, "active"))?;
    let all = each * libraries * hooks as u64;
    let came = receiver.came.lock().unwrap_or_else(PoisonError::into_inner);
    let waited = receiver.moved.wait_timeout_while(came, LONGEST, |came| came.count < all);
    let (came, _timeout) = waited.map_err(|_poisoned| "a receiver failed")?;
    let (Some(first), Some(last)) = (came.first, came.last) else {
        return Err("nothing was delivered".into());
    };
    let seconds = (last - first).as_secs_f64();
    let cpu = cpu_seconds(server.pid())? - cpu;
    println!(
        "{hooks:2} webhooks, {libraries} libraries, parallel {parallel}, {HANGING} more that hang: \
         {} of {all} deliveries in {seconds:.2} s, {:.0}/s; out of order {}; processor of the \
         server {:.0} us a delivery",
        came.count,
        came.count as f64 / seconds,
        came.disorder,
        cpu * 1e6 / came.count as f64,
    );
    Ok(())
}

fn hook(server: &Server, url: &str, parallel: bool) -> Outcome<String> {
    let body = json!({"url": url, "events": ["document.added"], "parallel": parallel});
    let made = server.request("POST", "/api/v1/webhooks", body.to_string().as_bytes())?.json()?;
    Ok(made["id"].as_str().ok_or("no id")?.to_owned())
}

fn set_status(server: &Server, id: &str, status: &str) -> Outcome<()> {
    let body = json!({"status": status}).to_string();
    let path = format!("/api/v1/webhooks/{id}");
    server.request("PATCH", &path, body.as_bytes())?.json().map(drop)
}

/// Writes documents whose ids ascend.
fn write(server: &Server, documents: u64) -> Outcome<()> {
    let library = server.create_library(2)?;
    let mut lines = server.lines(&library)?;
    let mut text = Vec::new();
    for n in 0..documents {
        let line = json!({
            "id": format!("{n:032x}"),
            "title": format!("document {n}"),
            "chunks": [{"text": "x", "embedding": [1.0, n as f64]}],
        });
        writeln!(text, "{line}")?;
        if text.len() > 64 << 10 {
            lines.send(&text)?;
            text.clear();
        }
    }
    lines.send(&text)?;
    lines.end()?.json().map(drop)
}

/// Listens for deliveries, and answers them or does not.
fn listen(receiver: Arc<Receiver>, answers: bool) -> Outcome<String> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?.to_string();
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let receiver = receiver.clone();
            std::thread::spawn(move || {
                // The server closes it at the end.
                serve(&receiver, socket, answers).unwrap_or_default();
            });
        }
    });
    Ok(address)
}

fn serve(receiver: &Receiver, socket: TcpStream, answers: bool) -> Outcome<()> {
    socket.set_nodelay(true)?;
    let (mut writer, mut reader) = (socket.try_clone()?, BufReader::new(socket));
    let (mut line, mut body) = (String::new(), Vec::new());
    loop {
        line.clear();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
        let mut length = 0;
        while line.trim_end() != "" {
            line.clear();
            reader.read_line(&mut line)?;
            if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length: ") {
                length = value.trim().parse()?;
            }
        }
        body.resize(length, 0);
        reader.read_exact(&mut body)?;
        if answers {
            note(receiver, &path, &body)?;
            writer.write_all(b"HTTP/1.1 204 No Content\r\n\r\n")?;
        }
    }
}

fn note(receiver: &Receiver, path: &str, body: &[u8]) -> Outcome<()> {
    let event: Value = serde_json::from_slice(body)?;
    let text = |name: &str| event["data"][name].as_str().unwrap_or_default().replace('-', "");
    let place = u64::from_str_radix(&text("document_id"), 16)?;
    let now = Instant::now();
    let mut came = receiver.came.lock().map_err(|_poisoned| "a receiver failed")?;
    came.count += 1;
    came.first.get_or_insert(now);
    came.last = Some(now);
    let before = came.places.insert((path.to_owned(), text("library_id")), place);
    if before.map_or(0, |before| before + 1) != place {
        came.disorder += 1;
    }
    receiver.moved.notify_all();
    Ok(())
}
