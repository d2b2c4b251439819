//! The real binary under clients as people write them, for what no OpenAPI document describes:
//! programs in Python and Node, and pages in a browser.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::Error;
use crate::serving::{Plan, against_server, configure, passes};
use crate::steps::Steps;
use crate::workspace::Workspace;

/// What programs use: WebSocket, HTTP, server-sent events.
const PYTHON_PACKAGES: [&str; 4] =
    ["websockets==17.4", "requests==2.34.2", "sseclient-py==1.9.0", "standardwebhooks==1.1.0"];

/// The reference verifier of webhooks, for the receiver in JavaScript.
const VERIFIER: (&str, &str) = ("standardwebhooks", "1.1.1");

/// What drives the browser; it brings none.
const DRIVER: (&str, &str) = ("playwright-core", "1.65.1");

/// Where a browser is, unless `CHROMIUM` says it.
const BROWSERS: [&str; 7] = [
    "/usr/bin/chromium",
    "/usr/bin/chromium-browser",
    "/usr/bin/google-chrome",
    "/usr/bin/google-chrome-stable",
    "/snap/bin/chromium",
    "/Applications/Chromium.app/Contents/MacOS/Chromium",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
];

/// Builds the server, installs what programs use below `target/`, runs those and reports.
pub(crate) fn clients(workspace: &Workspace) -> Result<(), Error> {
    let scripts = scripts(workspace);
    let site = workspace.target_dir()?.join("clients");
    std::fs::create_dir_all(&site).map_err(|source| Error::io(&site, source))?;
    let has_node = Command::new("node").arg("--version").output().is_ok();
    if has_node && !has_package(&site, VERIFIER) {
        passes("npm", &mut install(&site, VERIFIER))?;
    }
    let ask = |plan: &Plan, port: u16| {
        let mut command = Command::new(&plan.python);
        command.env("PYTHONDONTWRITEBYTECODE", "1");
        command.arg(scripts.join("clients.py")).arg(format!("http://127.0.0.1:{port}"));
        passes("clients.py", command.arg(&scripts).arg(&plan.site))
    };
    against_server(workspace, ("clients", &PYTHON_PACKAGES), ask)
}

/// Builds the server, installs the driver below `target/`, and has a browser load its pages and
/// follow it over restarts.
pub(crate) fn browser(workspace: &Workspace) -> Result<(), Error> {
    let browser = find_browser(env::var_os("CHROMIUM").map(PathBuf::from), &BROWSERS)?;
    let mut steps = Steps::default();
    if let Some(plan) = Plan::prepare(workspace, &mut steps, ("browser", &[]))?
        && (has_package(&plan.site, DRIVER)
            || steps.run("install driver", &mut install(&plan.site, DRIVER)))
    {
        let script = scripts(workspace).join("browser").join("main.mjs");
        steps.call("browser", None, || drive(&plan, &script, &browser));
    }
    steps.finish()
}

fn scripts(workspace: &Workspace) -> PathBuf {
    workspace.root().join("xtask").join("clients")
}

/// The browser to use, or an error that says how to get one.
fn find_browser(named: Option<PathBuf>, known: &[&str]) -> Result<PathBuf, Error> {
    if let Some(named) = named {
        let what =
            format!("CHROMIUM={} is not a file: name the browser's program", named.display());
        return if named.is_file() { Ok(named) } else { Err(Error::Absent(what)) };
    }
    let found = known.iter().map(PathBuf::from).find(|path| path.is_file());
    found.ok_or_else(|| {
        let what = "no Chromium: install it (`apt-get install chromium` on Debian), or name the \
                    program of one with CHROMIUM=<path>";
        Error::Absent(what.to_owned())
    })
}

/// Whether the right release of a package is there from an earlier run.
fn has_package(site: &Path, (name, version): (&str, &str)) -> bool {
    let package = site.join("node_modules").join(name).join("package.json");
    let read = std::fs::read_to_string(package);
    read.is_ok_and(|text| text.contains(&format!("\"version\": \"{version}\"")))
}

fn install(site: &Path, (name, version): (&str, &str)) -> Command {
    let mut install = Command::new("npm");
    install.args(["install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix"]);
    install.arg(site).arg(format!("{name}@{version}"));
    install
}

/// The script starts and kills the server itself: it is told what, and the environment for it.
fn drive(plan: &Plan, script: &Path, browser: &Path) -> Result<(), Error> {
    let (_stand_in, embedder) = plan.embedder()?;
    let data = plan.emptied("data")?;
    let mut command = Command::new("node");
    configure(&mut command, &data, embedder);
    passes("node", command.arg(script).arg(&plan.binary).arg(&plan.site).arg(browser))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_that_is_named_is_taken_and_none_is_said_with_the_way_to_get_one() {
        let here = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        let known = [here.to_str().unwrap()];
        assert_eq!(find_browser(Some(here.clone()), &[]).unwrap(), here);
        assert_eq!(find_browser(None, &known).unwrap(), here);
        let wrong = find_browser(Some(PathBuf::from("/no/browser")), &known).unwrap_err();
        assert!(wrong.to_string().contains("CHROMIUM=/no/browser is not a file"), "{wrong}");
        let none = find_browser(None, &["/no/browser"]).unwrap_err();
        assert!(none.to_string().contains("apt-get install chromium"), "{none}");
    }
}
