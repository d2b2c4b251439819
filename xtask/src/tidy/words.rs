//! Rules about words: those that mean unfinished work, names that say nothing, and what belongs to
//! the workshop instead of the product.

use super::tree::{Tree, is_data, is_rust};
use super::{Error, Finding};

/// What may hold prose or code of ours.
const TEXT: [&str; 13] = [
    ".rs",
    ".md",
    ".toml",
    ".sh",
    ".py",
    ".yml",
    ".yaml",
    ".html",
    ".js",
    ".ts",
    ".css",
    ".ci/run",
    "Dockerfile",
];

/// Words that usually mean unfinished work, as written here: case counts.
const UNFINISHED: [&str; 5] = [
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("XX", "X"),
    concat!("HA", "CK"),
    concat!("unimple", "mented!"),
];

/// The same in prose, in any case.
const UNFINISHED_PROSE: [&str; 1] = [concat!("for", " now")];

/// A test is run or deleted. Looked for anywhere in a line of Rust.
const IGNORED_TEST: &str = concat!("#[ig", "nore");

/// Whole names (without the ending) of files and folders that say nothing about their subject.
const NAMES_WHOLE: [&str; 9] =
    ["utils", "util", "helpers", "common", "types", "misc", "info", "data", "core"];

/// Parts of names, between underscores, that say nothing.
const NAMES_PART: [&str; 9] =
    ["manager", "handler", "handlers", "service", "services", "helper", "helpers", "utils", "v2"];

/// Sentences and names that only mean something where the project is made; any case.
const WORKSHOP: [&str; 5] = [
    concat!("this ", "session"),
    concat!("previous ", "session"),
    concat!("HELPERS", ".md"),
    concat!("DESIGN", ".md"),
    concat!("STYLE", ".md"),
];

/// A folder that exists only there; not a `work` folder below something else.
const WORKSHOP_FOLDER: &str = concat!("/wo", "rk/");

/// An issue by its bare number, as in `<word> 2`: a number says nothing outside a tracker.
const NUMBERED: [&str; 3] =
    [concat!("iss", "ue"), concat!("iss", "ues"), concat!("DESIGN sec", "tion")];

/// No word that means unfinished work, and no test that is switched off.
pub(crate) fn banned(tree: &Tree) -> Result<Vec<Finding>, Error> {
    each_line(tree, |path, line| {
        let prose = line.to_ascii_lowercase();
        let exact = UNFINISHED.iter().find(|word| has_word(line, word));
        let found = exact.or_else(|| UNFINISHED_PROSE.iter().find(|word| has_word(&prose, word)));
        if let Some(word) = found {
            return Some(format!("`{word}`: finish it or leave it out"));
        }
        let ignored = is_rust(path) && line.contains(IGNORED_TEST);
        ignored.then(|| "a test that is switched off: run it or delete it".to_owned())
    })
}

/// No file or folder of sources whose name says nothing about its subject.
#[expect(clippy::unnecessary_wraps, reason = "every rule has one signature")]
pub(crate) fn file_names(tree: &Tree) -> Result<Vec<Finding>, Error> {
    let mut findings = Vec::new();
    for path in tree.ending(".rs").filter(|path| !is_data(path)) {
        let stem = path.trim_end_matches(".rs");
        for name in stem.split('/') {
            let part = name.split('_').find(|part| NAMES_PART.contains(part));
            if part.is_some() || NAMES_WHOLE.contains(&name) {
                let what = format!("`{name}` says nothing: name the file by its subject");
                findings.push(Finding::of(path, what));
            }
        }
    }
    Ok(findings)
}

/// Nothing that only means something where the project is made.
pub(crate) fn workshop(tree: &Tree) -> Result<Vec<Finding>, Error> {
    each_line(tree, |_, line| {
        let lower = line.to_ascii_lowercase();
        let word = WORKSHOP.iter().find(|word| has_word(&lower, &word.to_ascii_lowercase()));
        if let Some(word) = word {
            return Some(format!("`{word}` means nothing to a reader of the project"));
        }
        if has_root_folder(line, WORKSHOP_FOLDER) {
            return Some(format!("`{WORKSHOP_FOLDER}` is a folder of one machine"));
        }
        let number =
            NUMBERED.iter().find(|word| has_number_after(&lower, &word.to_ascii_lowercase()));
        number.map(|word| format!("`{word}` and a number: say what it is about, or give its URL"))
    })
}

/// Asks about every line of every text file; test data is left out.
fn each_line(
    tree: &Tree,
    rule: impl Fn(&str, &str) -> Option<String>,
) -> Result<Vec<Finding>, Error> {
    let mut findings = Vec::new();
    let is_text = |path: &&str| TEXT.iter().any(|end| path.ends_with(end)) && !is_data(path);
    for path in tree.files().filter(is_text) {
        for (number, line) in (1..).zip(tree.text(path)?.lines()) {
            findings.extend(rule(path, line).map(|what| Finding::at(path, number, what)));
        }
    }
    Ok(findings)
}

/// Whether the word stands there with no letter, digit or underscore at either side.
fn has_word(line: &str, word: &str) -> bool {
    let part = |character: char| character.is_alphanumeric() || character == '_';
    line.match_indices(word).any(|(start, _)| {
        let before = line[..start].chars().next_back();
        let after = line[start + word.len()..].chars().next();
        let ends = word.ends_with('!') || !after.is_some_and(part);
        ends && !before.is_some_and(part)
    })
}

/// Whether the folder stands there as a path from the root, not below another folder.
fn has_root_folder(line: &str, folder: &str) -> bool {
    let below = |character: char| character.is_alphanumeric() || "._-)}]>*".contains(character);
    line.match_indices(folder)
        .any(|(start, _)| !line[..start].chars().next_back().is_some_and(below))
}

/// Whether the word is followed by a number, with or without a number sign.
fn has_number_after(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(start, _)| {
        let before = line[..start].chars().next_back();
        let after = line[start + word.len()..].trim_start_matches([' ', '#']);
        let joined = line[start + word.len()..].starts_with(|next: char| next.is_alphanumeric());
        !before.is_some_and(char::is_alphanumeric)
            && !joined
            && after.starts_with(|next: char| next.is_ascii_digit())
    })
}

#[cfg(test)]
mod tests {
    use super::super::tree::planted;
    use super::*;

    fn lines(rule: super::super::Rule, files: &[(&str, &str)]) -> Vec<String> {
        let (_folder, tree) = planted(files);
        let mut found = rule(&tree).unwrap();
        found.sort();
        found.iter().map(|it| format!("{}:{}", it.path, it.line.unwrap_or(0))).collect()
    }

    #[test]
    fn words_of_unfinished_work_are_found_as_whole_words() {
        let bad =
            format!("// {}: later\nfn f() {{}} // enough {}\n", UNFINISHED[0], UNFINISHED_PROSE[0]);
        let fine = format!(
            "let {}S = \"mktemp.{}Y\"; // {}here\n",
            UNFINISHED[0], UNFINISHED[2], UNFINISHED_PROSE[0]
        );
        let files = [("a.rs", &*bad), ("b.rs", &*fine), ("golden/c.md", &*bad), ("d.bin", &*bad)];
        assert_eq!(lines(banned, &files), ["a.rs:1", "a.rs:2"]);
    }

    #[test]
    fn a_test_that_is_switched_off_is_found() {
        let text = format!("#[test]\n{IGNORED_TEST}]\nfn a() {{}}\n");
        assert_eq!(lines(banned, &[("a.rs", &text), ("b.md", &text)]), ["a.rs:2"]);
    }

    #[test]
    fn names_that_say_nothing_are_found() {
        let files = [
            ("crates/x/src/utils.rs", ""),
            ("crates/x/src/connection_manager.rs", ""),
            ("crates/x/tests/common/mod.rs", ""),
            ("crates/x/src/search_v2.rs", ""),
            ("crates/x/src/metadata.rs", ""),
            ("crates/x/src/data_dir.rs", ""),
            ("docs/common.md", ""),
        ];
        let found = lines(file_names, &files);
        assert_eq!(found.len(), 4, "{found:?}");
        assert!(!found.iter().any(|path| path.contains("metadata") || path.contains("data_dir")));
    }

    #[test]
    fn words_of_the_workshop_are_found() {
        let bad =
            format!("see {}main\nin {}\nfor {} 2\n", WORKSHOP_FOLDER, WORKSHOP[0], NUMBERED[0]);
        let fine = format!(
            "<data>{}jobs and data{}x\n{}s: 2 known\n",
            WORKSHOP_FOLDER, WORKSHOP_FOLDER, NUMBERED[0]
        );
        assert_eq!(
            lines(workshop, &[("a.md", &bad), ("b.md", &fine)]),
            ["a.md:1", "a.md:2", "a.md:3"]
        );
    }
}
