//! Rules about the files that describe the project: manifests and the changelog.

use std::path::PathBuf;

use super::tree::Tree;
use super::{Error, Finding};

/// What every member takes from the workspace instead of saying it itself.
const INHERITED: [&str; 5] = ["version", "edition", "rust-version", "license", "publish"];

/// Every member takes its lints, version, edition and licence from the workspace.
pub(crate) fn own_settings(tree: &Tree) -> Result<Vec<Finding>, Error> {
    let mut findings = Vec::new();
    for path in tree.ending("Cargo.toml") {
        let manifest: toml::Table = tree.text(path)?.parse().map_err(|source| {
            let path = PathBuf::from(path);
            Error::Toml { path, source }
        })?;
        // The root, and a workspace of its own (fuzz targets need another toolchain).
        if manifest.contains_key("workspace") {
            continue;
        }
        if !inherits(&manifest, "lints") {
            findings
                .push(Finding::of(path, "no `[lints] workspace = true`: its lints are its own"));
        }
        let package = manifest.get("package").and_then(toml::Value::as_table);
        for key in INHERITED {
            if !package.is_some_and(|package| inherits(package, key)) {
                findings.push(Finding::of(path, format!("no `{key}.workspace = true`")));
            }
        }
    }
    Ok(findings)
}

fn inherits(table: &toml::Table, key: &str) -> bool {
    let inner = table.get(key).and_then(|value| value.get("workspace"));
    inner.and_then(toml::Value::as_bool) == Some(true)
}

/// The changelog is there and has a place for what comes next.
pub(crate) fn changelog(tree: &Tree) -> Result<Vec<Finding>, Error> {
    let path = "CHANGELOG.md";
    let Some(text) = tree.text_if_any(path)? else {
        return Ok(vec![Finding::of(path, "there is none")]);
    };
    let has = text.lines().any(|line| line.trim_end() == "## [Unreleased]");
    Ok(if has { Vec::new() } else { vec![Finding::of(path, "no section `## [Unreleased]`")] })
}

#[cfg(test)]
mod tests {
    use super::super::tree::planted;
    use super::*;

    const GOOD: &str = "[package]\nname = \"x\"\nversion.workspace = true\nedition.workspace = true\n\
                        rust-version.workspace = true\nlicense.workspace = true\n\
                        publish.workspace = true\n[lints]\nworkspace = true\n";

    #[test]
    fn a_member_with_settings_of_its_own_is_found() {
        let bad = GOOD.replace("edition.workspace = true", "edition = \"2021\"");
        let bad = bad.replace("[lints]\nworkspace = true\n", "");
        let files = [
            ("Cargo.toml", "[workspace]\nmembers = []\n"),
            ("crates/good/Cargo.toml", GOOD),
            ("crates/bad/Cargo.toml", &*bad),
        ];
        let (_folder, tree) = planted(&files);
        let found = own_settings(&tree).unwrap();
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found.iter().all(|finding| finding.path == "crates/bad/Cargo.toml"));
    }

    #[test]
    fn a_manifest_that_does_not_parse_is_an_error() {
        let (_folder, tree) = planted(&[("crates/x/Cargo.toml", "[package\n")]);
        assert!(matches!(own_settings(&tree), Err(Error::Toml { .. })));
    }

    #[test]
    fn a_changelog_without_a_place_for_what_comes_next_is_found() {
        for (text, findings) in [("# Changelog\n\n## [Unreleased]\n", 0), ("# Changelog\n", 1)] {
            let (_folder, tree) = planted(&[("CHANGELOG.md", text)]);
            assert_eq!(changelog(&tree).unwrap().len(), findings);
        }
        let (_folder, tree) = planted(&[("README.md", "")]);
        assert_eq!(changelog(&tree).unwrap().len(), 1);
    }
}
