//! `arrwdb serve` in a process of its own on a temporary directory, and a client that costs next
//! to nothing: bytes that are ready go to the socket as they are.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::Outcome;

/// How long the server may take to answer for the first time.
const START_MAX: Duration = Duration::from_mins(1);
/// How often memory is sampled.
const SAMPLE: Duration = Duration::from_millis(200);

/// A running server; killed when dropped.
#[derive(Debug)]
pub struct Server {
    child: Child,
    address: String,
    /// What it wrote to standard error.
    log: PathBuf,
    data: Option<TempDir>,
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill.
        self.child.kill().unwrap_or_default();
        self.child.wait().map(drop).unwrap_or_default();
    }
}

/// An answer's status and body.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// All of the body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as JSON, if the status is of success.
    pub fn json(&self) -> Outcome<Value> {
        let text = String::from_utf8_lossy(&self.body);
        if self.status / 100 != 2 {
            return Err(format!("status {}: {text:.500}", self.status).into());
        }
        Ok(serde_json::from_str(&text)?)
    }
}

impl Server {
    /// Starts the binary that lies beside this program, or the one that `ARRWDB` names, with
    /// these settings, on a new directory below `parent` (the system's own if `None`), and waits
    /// until it answers.
    pub fn start(
        program: &Path,
        parent: Option<&Path>,
        settings: &[(&str, &str)],
    ) -> Outcome<Self> {
        let data = match parent {
            Some(parent) => TempDir::new_in(parent)?,
            None => TempDir::new()?,
        };
        let mut server = Self::start_in(program, data.path(), settings)?;
        server.data = Some(data);
        Ok(server)
    }

    /// As [`Server::start`], in a directory that stays.
    pub fn start_in(program: &Path, dir: &Path, settings: &[(&str, &str)]) -> Outcome<Self> {
        let log = dir.join("log");
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let child = Command::new(program)
            .arg("serve")
            .env("HOST", "127.0.0.1")
            .env("PORT", port.to_string())
            .env("VECTOR_DB_DATA_DIR", dir.join("data"))
            .env("RATE_LIMIT_ENABLED", "false")
            .envs(settings.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log)?)
            .spawn()
            .map_err(|error| format!("cannot start {}: {error}", program.display()))?;
        let mut server = Self { child, address: format!("127.0.0.1:{port}"), log, data: None };
        let began = Instant::now();
        while !server.request("GET", "/ready", b"").is_ok_and(|answer| answer.status == 200) {
            if let Some(status) = server.child.try_wait()? {
                return Err(format!("the server ended with {status}").into());
            }
            if began.elapsed() > START_MAX {
                return Err("the server did not become ready".into());
            }
            sleep(Duration::from_millis(5));
        }
        Ok(server)
    }

    /// Where it listens.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Asks it to end in order, and waits until it has.
    pub fn stop(mut self) -> Outcome<()> {
        let pid = self.child.id().to_string();
        Command::new("kill").args(["-TERM", &pid]).status()?;
        let status = self.child.wait()?;
        if status.success() {
            Ok(())
        } else {
            Err(format!("the server ended with {status}").into())
        }
    }

    /// What it wrote to standard error so far.
    pub fn log(&self) -> Outcome<String> {
        Ok(std::fs::read_to_string(&self.log)?)
    }

    /// The sum of a metric over all its labels.
    pub fn metric(&self, name: &str) -> Outcome<f64> {
        let answer = self.request("GET", "/metrics", b"")?;
        let text = String::from_utf8(answer.body)?;
        let values = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(name).filter(|rest| rest.starts_with([' ', '{']))?;
            rest.rsplit(' ').next()?.parse::<f64>().ok()
        });
        Ok(values.sum())
    }

    /// Its own memory (`RssAnon`, without mapped files), in MB.
    pub fn megabytes(&self) -> Outcome<f64> {
        resident_anonymous(self.pid()).ok_or_else(|| "no RssAnon".into())
    }

    /// The server's process.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// One request with its whole answer.
    pub fn request(&self, method: &str, path: &str, body: &[u8]) -> Outcome<Answer> {
        let mut socket = TcpStream::connect(&self.address)?;
        let length = body.len();
        write!(
            socket,
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\nConnection: close\r\n\r\n",
            self.address
        )?;
        socket.write_all(body)?;
        read_answer(socket)
    }

    /// Creates a library of this dimension and returns its id.
    pub fn create_library(&self, dimension: usize) -> Outcome<String> {
        let body = json!({"name": "bench", "embedding_dimension": dimension}).to_string();
        let answer = self.request("POST", "/v1/libraries", body.as_bytes())?.json()?;
        let id = answer["id"].as_str().ok_or_else(|| format!("no id in {answer}"))?;
        Ok(id.to_owned())
    }

    /// Begins to send lines to a library; the answer is one JSON object after the last.
    pub fn lines(&self, library: &str) -> Outcome<Lines> {
        let mut socket = TcpStream::connect(&self.address)?;
        write!(
            socket,
            "POST /v1/libraries/{library}/documents/stream HTTP/1.1\r\nHost: {}\r\n\
             Content-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\
             Connection: close\r\n\r\n",
            self.address
        )?;
        Ok(Lines { socket })
    }

    /// Samples memory and processor time from now on.
    pub fn watch(&self) -> Outcome<Watch> {
        let (pid, stop) = (self.pid(), Arc::new(AtomicBool::new(false)));
        let stopped = stop.clone();
        let ticks = cpu_seconds(pid)?;
        let sampler = std::thread::spawn(move || {
            let mut samples = Vec::new();
            while !stopped.load(Ordering::SeqCst) {
                samples.extend(resident_anonymous(pid));
                sleep(SAMPLE);
            }
            samples
        });
        Ok(Watch { pid, stop, sampler, began: ticks })
    }
}

/// A connection that is kept, for one request after the other.
#[derive(Debug)]
pub struct Connection {
    writer: TcpStream,
    reader: BufReader<TcpStream>,
    head: String,
}

impl Connection {
    /// Connects.
    pub fn open(address: &str) -> Outcome<Self> {
        let socket = TcpStream::connect(address)?;
        socket.set_nodelay(true)?;
        let (writer, reader) = (socket.try_clone()?, BufReader::new(socket));
        Ok(Self { writer, reader, head: String::new() })
    }

    /// Sends a whole request, and waits for all of its answer.
    pub fn send(&mut self, request: &[u8]) -> Outcome<Answer> {
        self.writer.write_all(request)?;
        let (status, length) = read_head(&mut self.reader, &mut self.head)?;
        let Length::Bytes(length) = length else { return Err("an answer without a length".into()) };
        let mut body = Vec::new();
        self.reader.by_ref().take(length).read_to_end(&mut body)?;
        Ok(Answer { status, body })
    }
}

/// A POST of JSON as it goes over a connection that is kept.
pub fn post(address: &str, path: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\n\
         Content-Length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// A body on its way.
#[derive(Debug)]
pub struct Lines {
    socket: TcpStream,
}

impl Lines {
    /// Sends whole lines. Waits as long as the server takes no more.
    pub fn send(&mut self, lines: &[u8]) -> Outcome<()> {
        write!(self.socket, "{:x}\r\n", lines.len())?;
        self.socket.write_all(lines)?;
        self.socket.write_all(b"\r\n")?;
        Ok(())
    }

    /// Ends the body and waits for the answer: everything is durable then.
    pub fn end(mut self) -> Outcome<Answer> {
        self.socket.write_all(b"0\r\n\r\n")?;
        read_answer(self.socket)
    }
}

/// What the server used.
#[derive(Debug)]
pub struct Used {
    /// Its own memory (`RssAnon`, without mapped files), in MB, sample by sample.
    pub megabytes: Vec<f64>,
    /// Processor time, in seconds.
    pub cpu: f64,
}

/// Memory being sampled.
#[derive(Debug)]
pub struct Watch {
    pid: u32,
    stop: Arc<AtomicBool>,
    sampler: JoinHandle<Vec<f64>>,
    began: f64,
}

impl Watch {
    /// Stops sampling.
    pub fn end(self) -> Outcome<Used> {
        self.stop.store(true, Ordering::SeqCst);
        let cpu = cpu_seconds(self.pid)? - self.began;
        let megabytes = self.sampler.join().map_err(|_panic| "sampling failed")?;
        Ok(Used { megabytes, cpu })
    }
}

fn resident_anonymous(pid: u32) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<f64>().ok()? / 1e3)
}

/// Processor time of a process, all threads, in steps of 10 ms.
pub fn cpu_seconds(pid: u32) -> Outcome<f64> {
    cpu_of(&format!("/proc/{pid}/stat"))
}

/// Processor time of those threads of a process whose names begin so, in steps of 10 ms.
pub fn thread_cpu_seconds(pid: u32, name: &str) -> Outcome<f64> {
    let mut seconds = 0.0;
    for entry in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let thread = entry?.path();
        if std::fs::read_to_string(thread.join("comm"))?.starts_with(name) {
            seconds += cpu_of(&thread.join("stat").display().to_string())?;
        }
    }
    Ok(seconds)
}

fn cpu_of(path: &str) -> Outcome<f64> {
    let stat = std::fs::read_to_string(path)?;
    let (_name, fields) = stat.rsplit_once(')').ok_or("an odd stat")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks = |place: usize| fields.get(place).ok_or("an odd stat");
    Ok((ticks(11)?.parse::<f64>()? + ticks(12)?.parse::<f64>()?) / 100.0)
}

/// How long an answer's body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Length {
    Bytes(u64),
    Chunked,
    /// Until the connection ends.
    Rest,
}

/// Reads an answer's status and headers.
fn read_head(reader: &mut impl BufRead, line: &mut String) -> Outcome<(u16, Length)> {
    line.clear();
    reader.read_line(line)?;
    let status = line.split(' ').nth(1).ok_or("no status line")?.parse()?;
    let mut length = Length::Rest;
    loop {
        line.clear();
        reader.read_line(line)?;
        let header = line.trim_end().to_ascii_lowercase();
        if header.is_empty() {
            return Ok((status, length));
        }
        if header == "transfer-encoding: chunked" {
            length = Length::Chunked;
        } else if let Some(bytes) = header.strip_prefix("content-length: ") {
            length = Length::Bytes(bytes.parse()?);
        }
    }
}

fn read_answer(socket: TcpStream) -> Outcome<Answer> {
    let mut reader = BufReader::new(socket);
    let mut line = String::new();
    let (status, length) = read_head(&mut reader, &mut line)?;
    let mut chunked = length == Length::Chunked;
    let mut body = Vec::new();
    while chunked {
        line.clear();
        reader.read_line(&mut line)?;
        let length = u64::from_str_radix(line.trim_end(), 16)?;
        reader.by_ref().take(length).read_to_end(&mut body)?;
        line.clear();
        reader.read_line(&mut line)?;
        chunked = length > 0;
    }
    // Otherwise the connection ends with the body, as was asked for.
    reader.read_to_end(&mut body)?;
    Ok(Answer { status, body })
}

/// The server's binary: `ARRWDB` if that is set, else the one beside this program.
pub fn program() -> Outcome<PathBuf> {
    match std::env::var_os("ARRWDB") {
        Some(path) => Ok(PathBuf::from(path)),
        None => Ok(std::env::current_exe()?.with_file_name("arrwdb")),
    }
}
