//! House style as a check: what rustfmt, clippy and rustdoc cannot see.
//!
//! Each file below holds one family of rules as functions from a [`Tree`] to findings, and each rule
//! has a test that fails it on a tree made for that. What the tool must name but may not say itself
//! is put together with `concat!`, so that no file is exempt, this one included.

mod dependencies;
mod labels;
mod links;
mod manifests;
mod sources;
mod tree;
mod words;

use std::fmt;

use crate::error::Error;
use crate::workspace::Workspace;
use tree::Tree;

/// A place that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Finding {
    /// Relative to the root.
    path: String,
    /// Counted from 1; `None` where the whole file is meant.
    line: Option<usize>,
    what: String,
}

impl Finding {
    fn at(path: &str, line: usize, what: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line: Some(line), what: what.into() }
    }

    fn of(path: &str, what: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line: None, what: what.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}: {}", self.path, self.what),
            None => write!(f, "{}: {}", self.path, self.what),
        }
    }
}

/// A family of rules over the files of the tree.
type Rule = fn(&Tree) -> Result<Vec<Finding>, Error>;

/// Every rule that needs nothing but the files, with what it is about.
const RULES: [(&str, Rule); 13] = [
    ("file length", sources::too_long),
    ("ASCII sources", sources::not_ascii),
    ("where unsafe may stand", sources::unsafe_elsewhere),
    ("banned words", words::banned),
    ("file names", words::file_names),
    ("words of the workshop", words::workshop),
    ("labels and tests", labels::untested),
    ("labels in running text", labels::hidden),
    ("labels in the architecture", labels::dangling),
    ("links in documents", links::broken),
    ("documents named in comments", links::unwritten),
    ("manifests", manifests::own_settings),
    ("changelog", manifests::changelog),
];

/// Runs every rule and prints what it finds. An error if anything is found.
pub(crate) fn run(workspace: &Workspace) -> Result<(), Error> {
    let tree = Tree::open(workspace.root())?;
    let mut count = 0;
    for (name, rule) in RULES {
        count += report(name, rule(&tree)?);
    }
    for (name, findings) in dependencies::check(workspace)? {
        count += report(name, findings);
    }
    let long = sources::longest(&tree)?;
    println!("  {} files of more than {} code lines", long.len(), sources::LINES_SOFT_MAX);
    for (path, lines) in long {
        println!("       {lines:>4}  {path}");
    }
    if count == 0 { Ok(()) } else { Err(Error::NotPassed(format!("{count} findings"))) }
}

fn report(name: &str, mut findings: Vec<Finding>) -> usize {
    findings.sort();
    if findings.is_empty() {
        println!("  ok   {name}");
    } else {
        println!("  FAIL {name}");
    }
    for finding in &findings {
        println!("       {finding}");
    }
    findings.len()
}
