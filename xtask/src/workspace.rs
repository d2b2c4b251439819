//! Where the workspace is, and how cargo is called in it.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

use crate::error::Error;

/// The root of the workspace this tool was built in.
#[derive(Debug, Clone)]
pub(crate) struct Workspace {
    root: PathBuf,
}

impl Workspace {
    /// The folder above this crate's own: as cargo says it at run time, so that a moved checkout
    /// works, and as it was at build time where the binary is started without cargo.
    pub(crate) fn locate() -> Result<Self, Error> {
        let own = std::env::var_os("CARGO_MANIFEST_DIR")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
        match own.parent() {
            Some(root) if root.join("Cargo.toml").is_file() => {
                Ok(Self { root: root.to_path_buf() })
            }
            _ => Err(Error::Absent(format!("no workspace above {}", own.display()))),
        }
    }

    /// The folder with the workspace's Cargo.toml.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// A cargo command in the root.
    ///
    /// What `cargo run` sets for this tool itself is taken out of the environment: build scripts
    /// that watch those variables (ring's does) would otherwise run again at every call.
    pub(crate) fn cargo(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        command.current_dir(&self.root).args(arguments);
        for (name, _) in std::env::vars_os() {
            let text = name.to_string_lossy();
            if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
                command.env_remove(&name);
            }
        }
        command
    }

    /// Where cargo puts what it builds.
    pub(crate) fn target_dir(&self) -> Result<PathBuf, Error> {
        Ok(self.metadata(&["--no-deps"])?.target_directory)
    }

    /// Whether `cargo <subcommand>` is installed.
    pub(crate) fn has_subcommand(&self, subcommand: &str) -> bool {
        self.cargo(&[subcommand, "--version"]).output().is_ok_and(|out| out.status.success())
    }

    /// `cargo metadata` with the given further arguments.
    pub(crate) fn metadata(&self, arguments: &[&str]) -> Result<Metadata, Error> {
        let mut command = self.cargo(&["metadata", "--format-version", "1", "--locked"]);
        command.args(arguments);
        let program = "cargo metadata".to_owned();
        let out = match command.output() {
            Ok(out) => out,
            Err(source) => return Err(Error::Start { program, source }),
        };
        if !out.status.success() {
            let detail = String::from_utf8_lossy(&out.stderr).trim().to_owned();
            return Err(Error::Failed { program, detail });
        }
        serde_json::from_slice(&out.stdout).map_err(|source| Error::Json { program, source })
    }
}

/// What is needed of `cargo metadata`.
#[derive(Debug, Deserialize)]
pub(crate) struct Metadata {
    pub(crate) packages: Vec<Package>,
    pub(crate) workspace_members: Vec<String>,
    pub(crate) resolve: Option<Resolve>,
    #[serde(default)]
    pub(crate) target_directory: PathBuf,
}

/// A package of the workspace or one it depends on.
#[derive(Debug, Deserialize)]
pub(crate) struct Package {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) version: String,
    /// An SPDX expression; `None` if the package has only a licence file.
    pub(crate) license: Option<String>,
    /// Where it comes from; `None` for a path dependency.
    pub(crate) source: Option<String>,
    pub(crate) dependencies: Vec<Dependency>,
    pub(crate) targets: Vec<Target>,
}

/// A line of a package's Cargo.toml: normal, dev or build.
#[derive(Debug, Deserialize)]
pub(crate) struct Dependency {
    pub(crate) name: String,
}

/// Something that a package builds.
#[derive(Debug, Deserialize)]
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) kind: Vec<String>,
}

/// The graph as resolved for the chosen platforms.
#[derive(Debug, Deserialize)]
pub(crate) struct Resolve {
    pub(crate) nodes: Vec<Node>,
}

/// A package that is in the graph.
#[derive(Debug, Deserialize)]
pub(crate) struct Node {
    pub(crate) id: String,
}
