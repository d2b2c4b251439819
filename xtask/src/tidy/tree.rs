//! The files that the rules look at: what git tracks or would track, and nothing that is ignored.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::Error;

/// A folder with the list of its files.
#[derive(Debug)]
pub(crate) struct Tree {
    root: PathBuf,
    files: Vec<String>,
}

impl Tree {
    /// Lists the files of a git checkout, untracked ones included; of any other folder (an unpacked
    /// release), all but hidden ones and build outputs.
    pub(crate) fn open(root: &Path) -> Result<Self, Error> {
        let mut files = match git_files(root) {
            Some(files) => files,
            None => walk(root)?,
        };
        files.sort();
        files.dedup();
        Ok(Self { root: root.to_path_buf(), files })
    }

    /// Every file, relative to the root with `/` between the parts, in order.
    pub(crate) fn files(&self) -> impl Iterator<Item = &str> {
        self.files.iter().map(String::as_str)
    }

    /// The files whose names end so.
    pub(crate) fn ending(&self, end: &str) -> impl Iterator<Item = &str> {
        self.files().filter(move |path| path.ends_with(end))
    }

    /// Whether the path is a file or a folder of the tree; `""` is the root.
    pub(crate) fn contains(&self, path: &str) -> bool {
        let folder = format!("{path}/");
        path.is_empty() || self.files().any(|file| file == path || file.starts_with(&folder))
    }

    /// The text of a file; bytes that are not UTF-8 are replaced.
    pub(crate) fn text(&self, path: &str) -> Result<String, Error> {
        let full = self.root.join(path);
        let bytes = std::fs::read(&full).map_err(|source| Error::io(&full, source))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// As [`Tree::text`], or `None` if the tree has no such file.
    pub(crate) fn text_if_any(&self, path: &str) -> Result<Option<String>, Error> {
        if self.files().any(|file| file == path) { self.text(path).map(Some) } else { Ok(None) }
    }
}

/// Test data is data: it may hold any word, any length and any character.
pub(crate) fn is_data(path: &str) -> bool {
    const FOLDERS: [&str; 5] = ["testdata", "data", "golden", "goldens", "fixtures"];
    let folders = path.rsplit_once('/').map_or("", |(folders, _)| folders);
    folders.split('/').any(|folder| FOLDERS.contains(&folder)) && !path.contains("/src/")
}

/// Whether the file is Rust.
pub(crate) fn is_rust(path: &str) -> bool {
    Path::new(path).extension().is_some_and(|ending| ending == "rs")
}

/// `None` if the folder is not the top of a checkout.
fn git_files(root: &Path) -> Option<Vec<String>> {
    if !root.join(".git").exists() {
        return None;
    }
    let listed = Command::new("git")
        .arg("-C")
        .arg(root)
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .output()
        .ok()?;
    if !listed.status.success() {
        return None;
    }
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    // A deleted file is listed until its deletion is staged.
    let there = |path: &&str| !path.is_empty() && root.join(path).is_file();
    Some(text.split('\0').filter(there).map(str::to_owned).collect())
}

fn walk(root: &Path) -> Result<Vec<String>, Error> {
    let mut files = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let entries = std::fs::read_dir(&folder).map_err(|source| Error::io(&folder, source))?;
        for entry in entries {
            let entry = entry.map_err(|source| Error::io(&folder, source))?;
            let kind = entry.file_type().map_err(|source| Error::io(&entry.path(), source))?;
            let name = entry.file_name();
            let skipped = ["target", ".git", "node_modules", "__pycache__"];
            if kind.is_dir() && !skipped.iter().any(|skip| name == *skip) {
                folders.push(entry.path());
            } else if kind.is_file()
                && let Ok(path) = entry.path().strip_prefix(root)
            {
                files.push(path.to_string_lossy().replace('\\', "/"));
            }
        }
    }
    Ok(files)
}

/// A tree on disk for a test, with the given files.
#[cfg(test)]
pub(crate) fn planted(files: &[(&str, &str)]) -> (tempfile::TempDir, Tree) {
    let folder = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let full = folder.path().join(path);
        std::fs::create_dir_all(full.parent().unwrap()).unwrap();
        std::fs::write(full, text).unwrap();
    }
    let tree = Tree::open(folder.path()).unwrap();
    (folder, tree)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_without_git_is_walked_without_build_outputs() {
        let (_folder, tree) = planted(&[("a/b.rs", ""), ("target/x.rs", ""), ("README.md", "")]);
        assert_eq!(tree.files().collect::<Vec<_>>(), ["README.md", "a/b.rs"]);
        assert!(tree.contains("a") && tree.contains("a/b.rs") && tree.contains(""));
        assert!(!tree.contains("a/b") && !tree.contains("target"));
        assert_eq!(tree.text_if_any("absent").unwrap(), None);
    }

    #[test]
    fn a_checkout_is_what_git_would_track() {
        let (folder, _) = planted(&[(".gitignore", "/out\n"), ("out/x.rs", ""), ("new.rs", "")]);
        let git = Command::new("git").arg("-C").arg(folder.path()).args(["init", "-q"]).status();
        assert!(git.unwrap().success());
        let tree = Tree::open(folder.path()).unwrap();
        assert_eq!(tree.files().collect::<Vec<_>>(), [".gitignore", "new.rs"]);
    }

    #[test]
    fn data_is_told_from_sources_by_its_folder() {
        assert!(is_data("crates/log/tests/golden/frame.txt"));
        assert!(is_data("bench/data/cisi/queries.jsonl"));
        assert!(!is_data("crates/x/src/data/y.rs"));
        assert!(!is_data("README.md"));
    }
}
