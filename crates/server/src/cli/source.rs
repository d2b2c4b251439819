//! The files an import reads: what the given paths hold, in a deterministic order.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ignore::WalkBuilder;

use super::error::CliError;
use super::item::Place;

/// How a file is read.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// One document.
    Markdown,
    /// One document.
    Plain,
    /// One document.
    Html,
    /// One document.
    ReStructured,
    /// One document per line.
    NdJson,
    /// One document per row, after a row of names.
    Csv {
        /// The byte between cells.
        delimiter: u8,
    },
}

/// File names without an extension that are known to be text.
const TEXT_NAMES: [&str; 12] = [
    "readme",
    "license",
    "licence",
    "copying",
    "notice",
    "authors",
    "contributors",
    "changelog",
    "changes",
    "news",
    "todo",
    "install",
];

impl Format {
    /// How a file of this name is read; nothing when its type is not known.
    pub(crate) fn of(path: &Path) -> Option<Format> {
        let Some(extension) = path.extension() else {
            let name = path.file_name()?.to_str()?.to_ascii_lowercase();
            return TEXT_NAMES.contains(&name.as_str()).then_some(Format::Plain);
        };
        match extension.to_str()?.to_ascii_lowercase().as_str() {
            "md" | "markdown" | "mdown" | "mkd" | "mdx" => Some(Format::Markdown),
            "txt" | "text" => Some(Format::Plain),
            "html" | "htm" | "xhtml" => Some(Format::Html),
            "rst" | "rest" => Some(Format::ReStructured),
            "ndjson" | "jsonl" => Some(Format::NdJson),
            "csv" => Some(Format::Csv { delimiter: b',' }),
            "tsv" => Some(Format::Csv { delimiter: b'\t' }),
            _ => None,
        }
    }
}

/// One file to import.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// The absolute path, links resolved.
    pub(crate) path: Arc<Path>,
    pub(crate) format: Format,
    pub(crate) bytes: u64,
}

/// What the given paths hold.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    /// The files to read, in the order of their paths, each once.
    pub(crate) files: Vec<Source>,
    /// Files whose type is not known.
    pub(crate) unknown: u64,
    /// What could not be looked at, and why.
    pub(crate) failed: Vec<(Place, String)>,
    /// The given paths, absolute.
    pub(crate) roots: Vec<PathBuf>,
}

/// Walks `paths`. Hidden files and what git ignores are left out of folders, links inside them
/// are not followed; a file given by name is taken whatever it is called.
pub(crate) fn walk(paths: &[PathBuf]) -> Result<Sources, CliError> {
    let mut sources = Sources::default();
    for path in paths {
        let root = fs::canonicalize(path).map_err(|error| CliError::file(path, error))?;
        let meta = fs::metadata(&root).map_err(|error| CliError::file(path, error))?;
        if meta.is_dir() {
            walk_folder(&root, &mut sources);
        } else {
            // A file named by the user is read as text unless its name says something better.
            let format = Format::of(&root).unwrap_or(Format::Plain);
            let path = Arc::from(root.as_path());
            sources.files.push(Source { path, format, bytes: meta.len() });
        }
        sources.roots.push(root);
    }
    sources.files.sort_by(|a, b| a.path.cmp(&b.path));
    sources.files.dedup_by(|a, b| a.path == b.path);
    Ok(sources)
}

fn walk_folder(root: &Path, sources: &mut Sources) {
    let walk = WalkBuilder::new(root).follow_links(false).require_git(false).build();
    for entry in walk {
        let found = entry.and_then(|entry| {
            let meta = entry.metadata()?;
            Ok((entry, meta))
        });
        match found {
            Ok((entry, meta)) if meta.is_file() => match Format::of(entry.path()) {
                Some(format) => {
                    let path = Arc::from(entry.path());
                    sources.files.push(Source { path, format, bytes: meta.len() });
                }
                None => sources.unknown += 1,
            },
            Ok(_) => {}
            Err(error) => {
                let place = Place { path: Arc::from(root), line: None };
                sources.failed.push((place, error.to_string()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_ignored_and_unknown_files_are_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str| {
            let path = dir.path().join("docs").join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        };
        for name in [
            "b.md",
            "a.TXT",
            "deep/c.rst",
            ".hidden.md",
            ".git/d.md",
            "out/e.md",
            "f.png",
            "README",
        ] {
            write(name);
        }
        fs::write(dir.path().join("docs/.gitignore"), "out/\n").unwrap();
        let docs = dir.path().join("docs");
        let sources = walk(&[docs.clone(), docs.join("b.md")]).unwrap();
        let root = fs::canonicalize(&docs).unwrap();
        let names: Vec<_> = sources
            .files
            .iter()
            .map(|s| s.path.strip_prefix(&root).unwrap().to_str().unwrap())
            .collect();
        assert_eq!(names, ["README", "a.TXT", "b.md", "deep/c.rst"]);
        assert_eq!(sources.unknown, 1);
        assert!(sources.failed.is_empty());
    }

    #[test]
    fn a_path_that_is_not_there_is_an_error() {
        let error = walk(&[PathBuf::from("/nowhere/at/all")]).unwrap_err();
        assert!(error.to_string().starts_with("/nowhere/at/all: "), "{error}");
    }
}
