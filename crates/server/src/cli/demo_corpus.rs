//! What the demo imports: documentation that is on any machine which has just built the project.
//!
//! First the README of every crate in cargo's registry folder, then the other Markdown and
//! reStructuredText beside them; where there is no registry, the documentation under the working
//! directory. The choice depends only on the files there are, and stops at about the number of
//! passages asked for.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ignore::WalkBuilder;

use super::source::{Format, Source};

/// Characters of a passage, about: what turns sizes into numbers of passages.
const PASSAGE_BYTES: u64 = 600;

/// Larger files are change logs and tables rather than documentation.
const FILE_BYTES_MAX: u64 = 200_000;

/// Names, without extension, of what is beside a README but tells nothing about a crate.
const DULL: [&str; 14] = [
    "changelog",
    "changes",
    "history",
    "news",
    "release",
    "releases",
    "release-notes",
    "license",
    "contributing",
    "code_of_conduct",
    "security",
    "maintainers",
    "third_party",
    "copyright",
];

/// Where documentation was found and which files were chosen.
#[derive(Debug)]
pub(crate) struct Corpus {
    /// The folder all files lie under.
    pub(crate) root: PathBuf,
    /// The files, best first.
    pub(crate) files: Vec<Source>,
}

/// Chooses about `passages` passages of documentation; nothing when there is none.
pub(crate) fn choose(
    cargo_home: Option<&Path>,
    working_dir: &Path,
    passages: u32,
) -> Option<Corpus> {
    let registry = cargo_home.map(|home| home.join("registry").join("src"));
    let folders = [registry.map(|root| (root, true)), Some((working_dir.to_owned(), false))];
    for (root, is_registry) in folders.into_iter().flatten() {
        let crates = if is_registry { crates(&root) } else { vec![root.clone()] };
        let mut found: Vec<(Rank, PathBuf, u64)> =
            crates.iter().flat_map(|folder| documents(folder)).collect();
        found.sort();
        let files = within(found, u64::from(passages) * PASSAGE_BYTES);
        if !files.is_empty() {
            return Some(Corpus { root, files });
        }
    }
    None
}

/// How telling a file is; the better ones come first.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Readme,
    Other,
}

/// The folders of the crates in `registry`, one version of each.
fn crates(registry: &Path) -> Vec<PathBuf> {
    let mut newest = BTreeMap::new();
    for index in folders(registry) {
        for folder in folders(&index) {
            let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
            newest.insert(crate_name(&name).to_owned(), folder);
        }
    }
    newest.into_values().collect()
}

/// "serde-1.0.228" is "serde".
fn crate_name(folder: &str) -> &str {
    let digit_follows = |at: &usize| folder.as_bytes().get(at + 1).is_some_and(u8::is_ascii_digit);
    let at = folder.match_indices('-').map(|(at, _)| at).find(digit_follows);
    at.and_then(|at| folder.get(..at)).unwrap_or(folder)
}

/// The folders in `path`, in order; none when it cannot be read.
fn folders(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> =
        entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect();
    folders.sort();
    folders
}

/// The documentation in one crate or project.
fn documents(folder: &Path) -> Vec<(Rank, PathBuf, u64)> {
    const SKIPPED: [&str; 5] = ["target", "tests", "benches", "src", "node_modules"];
    let walk = WalkBuilder::new(folder)
        .max_depth(Some(4))
        .follow_links(false)
        .filter_entry(|entry| {
            let name = entry.file_name().to_string_lossy();
            entry.depth() == 0 || !SKIPPED.contains(&name.as_ref())
        })
        .build();
    let mut found = Vec::new();
    for entry in walk.flatten() {
        let Ok(meta) = entry.metadata() else { continue };
        if meta.is_file()
            && meta.len() <= FILE_BYTES_MAX
            && let Some(rank) = rank(entry.path(), entry.depth())
        {
            found.push((rank, entry.into_path(), meta.len()));
        }
    }
    found
}

fn rank(path: &Path, depth: usize) -> Option<Rank> {
    match Format::of(path)? {
        Format::Markdown | Format::ReStructured => {}
        Format::Plain | Format::Html | Format::NdJson | Format::Csv { .. } => return None,
    }
    let name = path.file_stem()?.to_str()?.to_ascii_lowercase();
    if DULL.iter().any(|dull| name.starts_with(dull)) {
        return None;
    }
    Some(if name == "readme" && depth == 1 { Rank::Readme } else { Rank::Other })
}

/// The first files that together stay within `bytes`.
fn within(found: Vec<(Rank, PathBuf, u64)>, bytes: u64) -> Vec<Source> {
    let mut left = bytes;
    let mut files = Vec::new();
    for (_, path, size) in found {
        let (Some(format), Ok(path)) = (Format::of(&path), fs::canonicalize(&path)) else {
            continue;
        };
        if size == 0 || size > left {
            continue;
        }
        left -= size;
        files.push(Source { path: Arc::from(path), format, bytes: size });
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, name: &str, bytes: usize) {
        let path = root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, "x".repeat(bytes)).unwrap();
    }

    fn names(corpus: &Corpus) -> Vec<String> {
        let root = fs::canonicalize(&corpus.root).unwrap();
        let name = |s: &Source| s.path.strip_prefix(&root).unwrap().to_string_lossy().into_owned();
        corpus.files.iter().map(name).collect()
    }

    #[test]
    fn readmes_come_first_and_one_version_of_each_crate_counts() {
        let home = tempfile::tempdir().unwrap();
        let src = home.path().join("registry/src/index");
        for name in [
            "a-1.0.0/README.md",
            "a-1.0.0/docs/guide.md",
            "a-1.0.0/CHANGELOG.md",
            "a-0.9.0/README.md",
            "b-c-2.1.0/Readme.md",
            "b-c-2.1.0/tests/x.md",
            "b-c-2.1.0/LICENSE.md",
        ] {
            write(&src, name, 100);
        }
        let choose = |passages| choose(Some(home.path()), Path::new("/nowhere"), passages).unwrap();
        assert_eq!(
            names(&choose(100)),
            ["index/a-1.0.0/README.md", "index/b-c-2.1.0/Readme.md", "index/a-1.0.0/docs/guide.md"]
        );
    }

    #[test]
    fn the_number_of_passages_is_bounded() {
        let home = tempfile::tempdir().unwrap();
        for n in 0..20 {
            write(home.path(), &format!("registry/src/i/c{n}-1.0.0/README.md"), 600);
        }
        let corpus = choose(Some(home.path()), Path::new("/nowhere"), 5).unwrap();
        assert_eq!(corpus.files.len(), 5);
    }

    #[test]
    fn the_working_directory_is_used_where_there_is_no_registry() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "README.md", 10);
        write(dir.path(), "docs/adr/0001.md", 10);
        let corpus = choose(Some(Path::new("/nowhere")), dir.path(), 5).unwrap();
        assert_eq!(names(&corpus), ["README.md", "docs/adr/0001.md"]);
        assert!(choose(None, Path::new("/nowhere"), 5).is_none());
    }
}
