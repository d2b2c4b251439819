//! The real binary, run for something that talks to it: built, with a stand-in for its embedding
//! provider, Python packages below `target/`, and stopped in good order.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::steps::Steps;
use crate::workspace::Workspace;

/// How long the server may take to be ready.
const READY_WITHIN: Duration = Duration::from_mins(1);

/// Runs something against a server of its own, with these Python packages.
pub(crate) fn against_server(
    workspace: &Workspace,
    (name, packages): (&str, &[&str]),
    ask: impl FnOnce(&Plan, u16) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut steps = Steps::default();
    if let Some(plan) = Plan::prepare(workspace, &mut steps, (name, packages))? {
        steps.call(name, None, || plan.run(ask));
    }
    steps.finish()
}

/// Runs a program to its end with its output passed through; an error if it did not pass.
pub(crate) fn passes(program: &str, command: &mut Command) -> Result<(), Error> {
    let status = command.status();
    let status = status.map_err(|source| Error::Start { program: program.to_owned(), source })?;
    if status.success() { Ok(()) } else { Err(Error::NotPassed(status.to_string())) }
}

/// What a run needs.
pub(crate) struct Plan {
    /// Python; programs of the packages lie beside it.
    pub(crate) python: PathBuf,
    /// Where the server's data and its log go.
    pub(crate) site: PathBuf,
    pub(crate) binary: PathBuf,
    pub(crate) stand_in: PathBuf,
}

impl Plan {
    /// Builds the server and installs the packages; nothing if a step of that did not pass.
    pub(crate) fn prepare(
        workspace: &Workspace,
        steps: &mut Steps,
        (name, packages): (&str, &[&str]),
    ) -> Result<Option<Self>, Error> {
        let target = workspace.target_dir()?;
        let site = target.join(name);
        // Without packages, the one that is there is enough.
        let own = site.join("venv").join("bin").join("python");
        let python = if packages.is_empty() { PathBuf::from("python3") } else { own };
        let arguments = ["build", "--locked", "--package", "arrwdb-server", "--bin", "arrwdb"];
        let mut ready = steps.run("build server", &mut workspace.cargo(&arguments));
        if ready && !packages.is_empty() && !python.with_file_name("pip").is_file() {
            let mut venv = Command::new("python3");
            ready = steps.run("venv", venv.args(["-m", "venv"]).arg(site.join("venv")));
        }
        if ready && !packages.is_empty() {
            let mut install = Command::new(python.with_file_name("pip"));
            let install = install.args(["install", "--quiet", "--disable-pip-version-check"]);
            ready = steps.run("install packages", install.args(packages));
        }
        let binary = target.join("debug").join("arrwdb");
        let stand_in = workspace.root().join("xtask").join("schemathesis").join("stand_in.py");
        Ok(ready.then_some(Self { python, site, binary, stand_in }))
    }

    fn run(&self, ask: impl FnOnce(&Self, u16) -> Result<(), Error>) -> Result<(), Error> {
        let data = self.emptied("data")?;
        let (_stand_in, embedder) = self.embedder()?;
        let log = self.site.join("server.log");
        let (mut server, port) = self.server(&data, &log, embedder)?;
        let outcome = ask(self, port);
        let ended = server.stop();
        let text = fs::read_to_string(&log).map_err(|source| Error::io(&log, source))?;
        outcome?;
        ended?;
        if text.contains("panicked") {
            return Err(Error::NotPassed(format!("the server panicked: see {}", log.display())));
        }
        Ok(())
    }

    /// The path of a folder of the site, which is not there now.
    pub(crate) fn emptied(&self, name: &str) -> Result<PathBuf, Error> {
        let folder = self.site.join(name);
        if folder.exists() {
            fs::remove_dir_all(&folder).map_err(|source| Error::io(&folder, source))?;
        }
        Ok(folder)
    }

    /// A stand-in for an embedding provider, and its port.
    pub(crate) fn embedder(&self) -> Result<(Running, u16), Error> {
        let mut command = Command::new(&self.python);
        let mut running = Running::start(command.arg(&self.stand_in).stdout(Stdio::piped()))?;
        let mut line = String::new();
        if let Some(output) = running.0.stdout.take() {
            let read = BufReader::new(output).read_line(&mut line);
            read.map_err(|source| Error::io(&self.stand_in, source))?;
        }
        let port = line.trim().parse().map_err(|_no_port| Error::Failed {
            program: self.stand_in.display().to_string(),
            detail: "it did not say its port".to_owned(),
        })?;
        Ok((running, port))
    }

    fn server(&self, data: &Path, log: &Path, embedder: u16) -> Result<(Running, u16), Error> {
        let socket = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
        let port = socket.map_err(|source| Error::io(Path::new("127.0.0.1:0"), source))?.port();
        let output = fs::File::create(log).map_err(|source| Error::io(log, source))?;
        let errors = output.try_clone().map_err(|source| Error::io(log, source))?;
        let mut command = Command::new(&self.binary);
        configure(&mut command, data, embedder);
        command.env("PORT", port.to_string());
        // Sequence numbers are made up: nobody has to wait for them.
        command.env("MIN_SEQ_WAIT_MILLISECONDS", "20").current_dir(&self.site);
        let mut server = Running::start(command.stdout(output).stderr(errors))?;
        let began = Instant::now();
        while !is_ready(port) {
            let gone = server.0.try_wait().is_ok_and(|status| status.is_some());
            if gone || began.elapsed() > READY_WITHIN {
                let detail = format!("it is not ready: see {}", log.display());
                return Err(Error::Failed { program: "arrwdb".to_owned(), detail });
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok((server, port))
    }
}

/// Sets what a server is told, beside its port.
pub(crate) fn configure(command: &mut Command, data: &Path, embedder: u16) {
    command.env("VECTOR_DB_DATA_DIR", data).env("HOST", "127.0.0.1");
    command.env("EMBEDDING_PROVIDER", "cohere").env("COHERE_API_KEY", "test");
    command.env("CO_API_URL", format!("http://127.0.0.1:{embedder}"));
    // Receivers are on this machine.
    command.env("WEBHOOK_ALLOW_PRIVATE", "true").env("RUST_BACKTRACE", "1");
}

fn is_ready(port: u16) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.write_all(b"GET /ready HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    ask().is_ok_and(|answer| answer.split(' ').nth(1) == Some("200"))
}

/// A program that ends with this value.
pub(crate) struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Result<Self, Error> {
        let program = command.get_program().to_string_lossy().into_owned();
        let started = command.stdin(Stdio::null()).spawn();
        started.map(Self).map_err(|source| Error::Start { program, source })
    }

    /// Asks it to stop, and waits until it has in good order.
    fn stop(&mut self) -> Result<(), Error> {
        let pid = self.0.id().to_string();
        let program = || "kill".to_owned();
        let asked = Command::new("kill").args(["-TERM", &pid]).status();
        asked.map_err(|source| Error::Start { program: program(), source })?;
        let ended = self.0.wait();
        let ended = ended.map_err(|source| Error::Start { program: program(), source })?;
        if ended.success() {
            Ok(())
        } else {
            Err(Error::NotPassed(format!("the server ended with {ended}")))
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
