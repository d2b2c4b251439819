//! The real binary under schemathesis: requests made from its own OpenAPI document, right and
//! wrong ones, whose answers have to be what the document says.

use std::path::Path;
use std::process::Command;

use crate::error::Error;
use crate::serving::{Plan, against_server, passes};
use crate::workspace::Workspace;

/// The release that is installed: a newer one has other checks, and finds other things.
const SCHEMATHESIS: &str = "schemathesis==4.32.5";

/// Requests made for each operation where no number is asked for.
pub(crate) const EXAMPLES: u32 = 50;

/// What is checked of every answer. Left out is what contradicts a promise to clients: that a
/// parameter nobody knows is ignored, that a limit in characters is one of the settings, and that
/// a library accepts only vectors of its own dimension, which no document can say.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
                      response_headers_conformance,response_schema_conformance,\
                      unsupported_method,allow_header_conformance,use_after_free";

/// Builds the server, installs schemathesis below `target/`, runs it and reports.
pub(crate) fn schemathesis(workspace: &Workspace, examples: u32) -> Result<(), Error> {
    let ask = |plan: &Plan, port| ask(plan, port, examples);
    against_server(workspace, ("schemathesis", &[SCHEMATHESIS]), ask)
}

/// Asks the server at this port.
fn ask(plan: &Plan, port: u16, examples: u32) -> Result<(), Error> {
    let mut command = Command::new(plan.python.with_file_name("schemathesis"));
    command.arg("run").arg(format!("http://127.0.0.1:{port}/openapi.json"));
    command.args(["--checks", CHECKS, "--seed", "1", "--generation-database", "none"]);
    command.args(["--max-examples", &examples.to_string(), "--continue-on-failure"]);
    command.args(["--no-color", "--request-timeout", "60"]).current_dir(&plan.site);
    // An answer without an end is no answer to it.
    command.args(["--exclude-path", "/v1/events/stream"]);
    // Its stateful phase has no bound of its own.
    command.args(["--phases", "examples,coverage,fuzzing"]);
    // The hooks beside the stand-in.
    let hooks = plan.stand_in.parent().unwrap_or(Path::new("."));
    command.env("PYTHONPATH", hooks).env("PYTHONDONTWRITEBYTECODE", "1");
    command.env("SCHEMATHESIS_HOOKS", "hooks");
    passes("schemathesis", &mut command)
}
