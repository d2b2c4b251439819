//! The real binary under schemathesis: requests made from its own OpenAPI document, right and
//! wrong ones, whose answers have to be what the document says. And under clients as people write
//! them, for what no OpenAPI document describes.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::error::Error;
use crate::steps::Steps;
use crate::workspace::Workspace;

/// The release that is installed: a newer one has other checks, and finds other things.
const SCHEMATHESIS: &str = "schemathesis==4.32.5";

/// What clients use: WebSocket, HTTP, server-sent events.
const CLIENT_PACKAGES: [&str; 3] = ["websockets==17.4", "requests==2.34.2", "sseclient-py==1.9.0"];

/// Requests made for each operation where no number is asked for.
pub(crate) const EXAMPLES: u32 = 50;

/// What is checked of every answer. Left out is what contradicts a promise to clients: that a
/// parameter nobody knows is ignored, that a limit in characters is one of the settings, and that
/// a library accepts only vectors of its own dimension, which no document can say.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
                      response_headers_conformance,response_schema_conformance,\
                      unsupported_method,allow_header_conformance,use_after_free";

/// How long the server may take to be ready.
const READY_WITHIN: Duration = Duration::from_mins(1);

/// Builds the server, installs schemathesis below `target/`, runs it and reports.
pub(crate) fn schemathesis(workspace: &Workspace, examples: u32) -> Result<(), Error> {
    let ask = |plan: &Plan, port| plan.ask(port, examples);
    against_server(workspace, ("schemathesis", &[SCHEMATHESIS]), ask)
}

/// Builds the server, installs what clients use below `target/`, runs those clients and reports.
pub(crate) fn clients(workspace: &Workspace) -> Result<(), Error> {
    let scripts = workspace.root().join("xtask").join("clients");
    let ask = |plan: &Plan, port: u16| {
        let mut command = Command::new(plan.python.join("python"));
        command.arg(scripts.join("clients.py")).arg(format!("http://127.0.0.1:{port}"));
        passes("clients.py", command.arg(&scripts))
    };
    against_server(workspace, ("clients", &CLIENT_PACKAGES), ask)
}

/// Runs something against a server of its own, with these Python packages.
fn against_server(
    workspace: &Workspace,
    (name, packages): (&str, &[&str]),
    ask: impl FnOnce(&Plan, u16) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut steps = Steps::default();
    let target = workspace.target_dir()?;
    let site = target.join(name);
    let python = site.join("venv").join("bin");
    let arguments = ["build", "--locked", "--package", "arrwdb-server", "--bin", "arrwdb"];
    let mut ready = steps.run("build server", &mut workspace.cargo(&arguments));
    if ready && !python.join("pip").is_file() {
        let mut venv = Command::new("python3");
        ready = steps.run("venv", venv.args(["-m", "venv"]).arg(site.join("venv")));
    }
    if ready {
        let mut install = Command::new(python.join("pip"));
        let install = install.args(["install", "--quiet", "--disable-pip-version-check"]);
        ready = steps.run("install packages", install.args(packages));
    }
    if ready {
        let binary = target.join("debug").join("arrwdb");
        let stand_in = workspace.root().join("xtask").join("schemathesis").join("stand_in.py");
        let plan = Plan { python, site, binary, stand_in };
        steps.call(name, None, || plan.run(ask));
    }
    steps.finish()
}

fn passes(program: &str, command: &mut Command) -> Result<(), Error> {
    let status = command.status();
    let status = status.map_err(|source| Error::Start { program: program.to_owned(), source })?;
    if status.success() { Ok(()) } else { Err(Error::NotPassed(status.to_string())) }
}

/// What a run needs.
struct Plan {
    /// Where the virtual environment's programs are.
    python: PathBuf,
    /// Where the server's data and its log go.
    site: PathBuf,
    binary: PathBuf,
    stand_in: PathBuf,
}

impl Plan {
    fn run(&self, ask: impl FnOnce(&Self, u16) -> Result<(), Error>) -> Result<(), Error> {
        let data = self.site.join("data");
        if data.exists() {
            fs::remove_dir_all(&data).map_err(|source| Error::io(&data, source))?;
        }
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

    /// A stand-in for an embedding provider, and its port.
    fn embedder(&self) -> Result<(Running, u16), Error> {
        let program = self.python.join("python");
        let mut command = Command::new(&program);
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
        command.env("VECTOR_DB_DATA_DIR", data).env("HOST", "127.0.0.1");
        command.env("PORT", port.to_string()).env("EMBEDDING_PROVIDER", "cohere");
        command.env("COHERE_API_KEY", "test");
        // Sequence numbers are made up: nobody has to wait for them.
        command.env("MIN_SEQ_WAIT_MILLISECONDS", "20");
        command.env("CO_API_URL", format!("http://127.0.0.1:{embedder}"));
        command.env("RUST_BACKTRACE", "1").current_dir(&self.site);
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

    fn ask(&self, port: u16, examples: u32) -> Result<(), Error> {
        let mut command = Command::new(self.python.join("schemathesis"));
        command.arg("run").arg(format!("http://127.0.0.1:{port}/openapi.json"));
        command.args(["--checks", CHECKS, "--seed", "1", "--generation-database", "none"]);
        command.args(["--max-examples", &examples.to_string(), "--continue-on-failure"]);
        command.args(["--no-color", "--request-timeout", "60"]).current_dir(&self.site);
        // An answer without an end is no answer to it.
        command.args(["--exclude-path", "/v1/events/stream"]);
        // Its stateful phase has no bound of its own.
        command.args(["--phases", "examples,coverage,fuzzing"]);
        // The hooks beside the stand-in.
        let hooks = self.stand_in.parent().unwrap_or(Path::new("."));
        command.env("PYTHONPATH", hooks).env("PYTHONDONTWRITEBYTECODE", "1");
        command.env("SCHEMATHESIS_HOOKS", "hooks");
        passes("schemathesis", &mut command)
    }
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
struct Running(Child);

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
