//! WebSockets: how many a second are accepted, how many are open at once, and how long a search
//! takes there and back.
//!
//! `cargo xtask bench sockets -- [connect|open|search] [SECONDS]`
#![expect(clippy::print_stdout, reason = "printing figures is what it is for")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use arrwdb_bench::Outcome;
use arrwdb_bench::figures::{at, load};
use arrwdb_bench::server::{Server, program};

const OPEN: usize = 5000;
const CONNECTORS: usize = 8;
const CHUNKS: usize = 10_000;
const DIMENSION: usize = 384;
const IN_FLIGHT: usize = 32;

fn main() -> Outcome<()> {
    let mut arguments = std::env::args().skip(1);
    let what = arguments.next().unwrap_or_else(|| "all".to_owned());
    let seconds: f64 = arguments.next().map_or(Ok(5.0), |text| text.parse())?;
    let wanted = |name: &str| what == name || what == "all";
    if wanted("connect") {
        connect(seconds)?;
    }
    if wanted("open") {
        open()?;
    }
    if wanted("search") {
        search(seconds)?;
    }
    Ok(())
}

fn server() -> Outcome<Server> {
    let settings = [
        ("EMBEDDING_PROVIDER", "cohere"),
        ("COHERE_API_KEY", "unused"),
        ("LOG_LEVEL", "WARNING"),
        ("MAX_CONNECTIONS", "100000"),
        ("WEBSOCKET_MAX_CONNECTIONS", "100000"),
        ("WEBSOCKET_MESSAGES_PER_SECOND", "1000000"),
        ("WEBSOCKET_REQUESTS_MAX", "64"),
    ];
    Server::start(&program()?, None, &settings)
}

/// A WebSocket that sends texts and reads what comes, as a client that costs next to nothing.
struct Socket {
    writer: TcpStream,
    reader: BufReader<TcpStream>,
}

impl Socket {
    fn open(address: &str, library: &str) -> Outcome<Self> {
        let mut writer = TcpStream::connect(address)?;
        writer.set_nodelay(true)?;
        // The key of the RFC's example: nobody between here and there keeps answers.
        let head = format!(
            "GET /v1/libraries/{library}/ws HTTP/1.1\r\nHost: {address}\r\nConnection: Upgrade\r\n\
             Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        writer.write_all(head.as_bytes())?;
        let mut reader = BufReader::with_capacity(512, writer.try_clone()?);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        if !line.contains(" 101 ") {
            return Err(format!("no WebSocket: {line}").into());
        }
        while line != "\r\n" {
            line.clear();
            if reader.read_line(&mut line)? == 0 {
                return Err("the answer breaks off".into());
            }
        }
        Ok(Self { writer, reader })
    }

    /// Sends a text. Its mask is zero, so that the bytes stay as they are.
    fn send(&mut self, text: &[u8]) -> Outcome<()> {
        let mut frame = vec![0x81];
        match text.len() {
            length @ 0..126 => frame.push(0x80 | u8::try_from(length)?),
            length @ 126..65_536 => {
                frame.push(0x80 | 0x7e);
                frame.extend_from_slice(&u16::try_from(length)?.to_be_bytes());
            }
            length => {
                frame.push(0x80 | 0x7f);
                frame.extend_from_slice(&(length as u64).to_be_bytes());
            }
        }
        frame.extend_from_slice(&[0; 4]);
        frame.extend_from_slice(text);
        Ok(self.writer.write_all(&frame)?)
    }

    /// The next frame's text.
    fn receive(&mut self, text: &mut Vec<u8>) -> Outcome<()> {
        let mut head = [0; 2];
        loop {
            self.reader.read_exact(&mut head)?;
            let length = match head[1] & 0x7f {
                126 => {
                    let mut bytes = [0; 2];
                    self.reader.read_exact(&mut bytes)?;
                    u64::from(u16::from_be_bytes(bytes))
                }
                127 => {
                    let mut bytes = [0; 8];
                    self.reader.read_exact(&mut bytes)?;
                    u64::from_be_bytes(bytes)
                }
                length => u64::from(length),
            };
            text.resize(usize::try_from(length)?, 0);
            self.reader.read_exact(text)?;
            match head[0] & 0x0f {
                1 => return Ok(()),
                8 => return Err(format!("closed: {}", String::from_utf8_lossy(text)).into()),
                _ping => {}
            }
        }
    }

    fn ask(&mut self, text: &[u8], answer: &mut Vec<u8>) -> Outcome<()> {
        self.send(text)?;
        self.receive(answer)
    }
}

/// Connections a second, each answered and then let go.
fn connect(seconds: f64) -> Outcome<()> {
    let server = server()?;
    let library = server.create_library(4)?;
    let (count, done) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let began = Instant::now();
    let threads: Vec<_> = (0..CONNECTORS)
        .map(|_n| {
            let (address, library) = (server.address().to_owned(), library.clone());
            let (count, done) = (count.clone(), done.clone());
            std::thread::spawn(move || -> Result<(), String> {
                while !done.load(Ordering::Relaxed) {
                    Socket::open(&address, &library).map_err(|error| error.to_string())?;
                    count.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            })
        })
        .collect();
    std::thread::sleep(Duration::from_secs_f64(seconds));
    done.store(true, Ordering::Relaxed);
    let (accepted, taken) = (count.load(Ordering::Relaxed), began.elapsed().as_secs_f64());
    for thread in threads {
        thread.join().map_err(|_panic| "a client failed")??;
    }
    println!(
        "{accepted} WebSockets in {taken:.1} s from {CONNECTORS} threads beside the server: {:.0} \
         accepted a second; load {}",
        accepted as f64 / taken,
        load()
    );
    server.stop()
}

/// Memory of a server with many open, and whether each of them is answered.
fn open() -> Outcome<()> {
    let server = server()?;
    let library = server.create_library(4)?;
    let before = server.megabytes()?;
    let began = Instant::now();
    let mut sockets: Vec<Socket> =
        (0..OPEN).map(|_n| Socket::open(server.address(), &library)).collect::<Outcome<_>>()?;
    let taken = began.elapsed().as_secs_f64();
    let after = server.megabytes()?;
    let told = server.request("GET", "/v1/websockets/stats", b"")?.json()?;
    let mut answer = Vec::new();
    for socket in &mut sockets {
        socket.ask(b"{\"request_id\":\"1\",\"action\":\"ping\"}", &mut answer)?;
    }
    println!(
        "{} WebSockets open at once ({:.0} a second from one thread), each answered: {:.1} MB more, \
         {:.1} KB each; load {}",
        told["total_connections"],
        OPEN as f64 / taken,
        after - before,
        (after - before) * 1e3 / OPEN as f64,
        load()
    );
    drop(sockets);
    server.stop()
}

/// The vector number `n`, as JSON.
fn vector(n: usize) -> String {
    let mut state = n as u64 + 1;
    let numbers: Vec<String> = (0..DIMENSION)
        .map(|_n| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            format!("{:.5}", (state >> 40) as f64 / 8_388_608.0 - 1.0)
        })
        .collect();
    format!("[{}]", numbers.join(","))
}

/// Milliseconds of a search there and back, one at a time and many at a time.
fn search(seconds: f64) -> Outcome<()> {
    let server = server()?;
    let library = server.create_library(DIMENSION)?;
    let mut lines = server.lines(&library)?;
    for n in 0..CHUNKS {
        let line = format!(
            "{{\"title\":\"{n}\",\"chunks\":[{{\"text\":\"passage {n}\",\"embedding\":{}}}]}}\n",
            vector(n)
        );
        lines.send(line.as_bytes())?;
    }
    lines.end()?.json()?;
    let mut socket = Socket::open(server.address(), &library)?;
    let requests: Vec<String> = (0..200)
        .map(|n| {
            let vector = vector(CHUNKS + n);
            format!("{{\"request_id\":\"{n}\",\"action\":\"search\",\"data\":{{\"embedding\":{vector},\"k\":10}}}}")
        })
        .collect();
    let (mut answer, mut times) = (Vec::new(), Vec::new());
    let began = Instant::now();
    let mut n = 0;
    while began.elapsed().as_secs_f64() < seconds {
        let sent = Instant::now();
        socket.ask(requests[n % requests.len()].as_bytes(), &mut answer)?;
        times.push(sent.elapsed().as_secs_f64() * 1e3);
        n += 1;
    }
    let text = String::from_utf8_lossy(&answer);
    if !text.contains("\"success\":true") || !text.contains("\"total_results\":10") {
        return Err(format!("an odd answer: {text:.300}").into());
    }
    println!(
        "search by vector of {CHUNKS} chunks of {DIMENSION} numbers, there and back: p50 {:.2} ms, \
         p99 {:.2} ms ({} searches); load {}",
        at(&times, 0.5),
        at(&times, 0.99),
        times.len(),
        load()
    );
    let began = Instant::now();
    let (mut sent, mut received) = (0, 0);
    while received < sent || began.elapsed().as_secs_f64() < seconds {
        while sent - received < IN_FLIGHT && began.elapsed().as_secs_f64() < seconds {
            socket.send(requests[sent % requests.len()].as_bytes())?;
            sent += 1;
        }
        socket.receive(&mut answer)?;
        received += 1;
    }
    println!(
        "{IN_FLIGHT} at a time on one connection: {:.0} searches/s; load {}",
        received as f64 / began.elapsed().as_secs_f64(),
        load()
    );
    server.stop()
}
