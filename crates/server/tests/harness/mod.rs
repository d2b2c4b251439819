//! Starts the real binary on a directory of its own and talks to it over HTTP.
//!
//! Every wait is for a condition with a deadline; a server that does not come up fails the test
//! with what it wrote. A server is killed when its handle is dropped.

pub(crate) mod client;
pub(crate) mod provider;
pub(crate) mod raw;
pub(crate) mod receiver;
pub(crate) mod schema;
pub(crate) mod sse;
pub(crate) mod store;
pub(crate) mod vectors;
pub(crate) mod ws;

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

pub(crate) use client::{Answer, Client};
use provider::Provider;
use tempfile::TempDir;

/// The longest anything may take that is waited for.
pub(crate) const DEADLINE: Duration = Duration::from_mins(1);

/// How often a condition is looked at again.
const POLL: Duration = Duration::from_millis(5);

/// Waits until `condition` holds and returns what it found; panics with `what` after [`DEADLINE`].
pub(crate) async fn until<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = condition().await {
            return found;
        }
        assert!(began.elapsed() < DEADLINE, "waited too long until {what}");
        tokio::time::sleep(POLL).await;
    }
}

/// What a server needs that may outlive it: its directory, its settings and its embedder.
#[derive(Debug)]
pub(crate) struct Site {
    root: TempDir,
    /// The data directory.
    pub(crate) data_dir: PathBuf,
    environment: Vec<(String, String)>,
    /// The embedder the server is told to use; dropped last.
    pub(crate) provider: Option<Provider>,
}

impl Site {
    /// A fresh directory and an embedder that needs no model.
    pub(crate) async fn new() -> Site {
        let provider = Provider::start().await;
        let mut site = Site::bare();
        site.set("EMBEDDING_PROVIDER", "cohere");
        site.set("COHERE_API_KEY", "test");
        site.set("CO_API_URL", &provider.url());
        site.provider = Some(provider);
        site
    }

    /// A fresh directory and nothing else.
    pub(crate) fn bare() -> Site {
        let root = tempfile::tempdir().expect("temporary directory");
        let data_dir = root.path().join("data");
        Site { root, data_dir, environment: Vec::new(), provider: None }
    }

    /// A fresh directory and the real local model, from where it is kept on this machine.
    pub(crate) fn with_local_model() -> Site {
        let mut site = Site::bare();
        site.set("EMBEDDING_PROVIDER", "local");
        for name in ["MODEL_DIR", "MODEL_URL", "HOME", "XDG_CACHE_HOME", "SSL_CERT_FILE"] {
            if let Ok(value) = std::env::var(name) {
                site.set(name, &value);
            }
        }
        site
    }

    /// Sets an environment variable of the servers started here from now on.
    pub(crate) fn set(&mut self, name: &str, value: &str) {
        self.environment.push((name.to_owned(), value.to_owned()));
    }

    /// A directory for the test's own files.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// The binary with this site's settings and nothing else of this process's environment.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_arrwdb"));
        command.env_clear().current_dir(self.root.path());
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.env("HOME", self.root.path()).env("RUST_BACKTRACE", "1");
        command.env("VECTOR_DB_DATA_DIR", &self.data_dir).env("HOST", "127.0.0.1");
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Starts a server and waits until it is ready.
    pub(crate) async fn start(&self) -> Server {
        let server = self.spawn();
        server.ready().await;
        server
    }

    /// Starts a server without waiting for it.
    pub(crate) fn spawn(&self) -> Server {
        let port = free_port();
        let log = self.root.path().join(format!("server-{port}.log"));
        let file = File::create(&log).expect("log file");
        let child = self
            .command()
            .env("PORT", port.to_string())
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("log file"))
            .stderr(file)
            .spawn()
            .expect("the server starts");
        let client = Client::new(&format!("http://127.0.0.1:{port}"));
        Server { child: std::sync::Mutex::new(child), client, log }
    }
}

/// A port nobody listens on at the moment.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("address").port()
}

/// A running server; dereferences to a client of it.
#[derive(Debug)]
pub(crate) struct Server {
    child: std::sync::Mutex<Child>,
    /// A client of it.
    pub(crate) client: Client,
    log: PathBuf,
}

impl std::ops::Deref for Server {
    type Target = Client;

    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let mut child = self.child.lock().expect("child");
        child.kill().ok();
        child.wait().ok();
        if std::thread::panicking() {
            eprintln!("--- the server's log ---\n{}", self.log());
        }
    }
}

impl Server {
    /// Waits until `/ready` answers 200.
    pub(crate) async fn ready(&self) {
        until("the server is ready", async || {
            if let Some(status) = self.exited() {
                panic!("the server ended with {status}:\n{}", self.log());
            }
            let answer = self.client.try_get("/ready").await?;
            (answer.status == 200).then_some(())
        })
        .await;
    }

    /// The exit status, if it has ended.
    pub(crate) fn exited(&self) -> Option<ExitStatus> {
        self.child.lock().expect("child").try_wait().expect("status")
    }

    /// Waits for its end.
    pub(crate) async fn ended(&self) -> ExitStatus {
        until("the server ends", async || self.exited()).await
    }

    /// What it wrote to standard output and standard error.
    pub(crate) fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Kills it as `kill -9` does and waits until it is gone.
    pub(crate) fn kill(&self) {
        let mut child = self.child.lock().expect("child");
        child.kill().expect("kill");
        child.wait().expect("wait");
    }

    /// Sends SIGTERM.
    pub(crate) fn terminate(&self) {
        let pid = self.pid().to_string();
        let status = Command::new("kill").args(["-TERM", &pid]).status().expect("kill");
        assert!(status.success());
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.lock().expect("child").id()
    }

    /// Resident memory in bytes, as Linux counts it.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let status =
            fs::read_to_string(Path::new("/proc").join(self.pid().to_string()).join("status"));
        let status = status.expect("/proc");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        line.trim().trim_end_matches(" kB").trim().parse::<u64>().expect("kB") * 1024
    }
}
