//! Rules that tie an invariant to the test that fails without it.
//!
//! A module doc defines an invariant by a label at the start of a line: `- **L4**: only a torn tail
//! is cut`, or `- L4: ...`. A test names it by how its own name begins: `l4_only_a_torn_tail_is_cut`,
//! or, where it shows two at once, `l3_l4_...`.

use std::collections::{BTreeMap, BTreeSet};

use super::tree::{Tree, is_data};
use super::{Error, Finding};

/// Names of Rust's primitive types that look like labels: `i8_rows_score_alike` names no label.
const PRIMITIVES: [&str; 10] = ["I8", "I16", "I32", "I64", "U8", "U16", "U32", "U64", "F32", "F64"];

/// Where the labels are listed for readers.
const ARCHITECTURE: &str = "docs/ARCHITECTURE.md";

/// A place in the tree.
type Place = (String, usize);

/// The labels of one crate.
#[derive(Debug, Default)]
struct Labels {
    defined: BTreeMap<String, Place>,
    tested: BTreeMap<String, Place>,
}

/// Every label that a crate defines has a test in that crate, and every test that is named after a
/// label of the crate's own family has its definition there.
pub(crate) fn untested(tree: &Tree) -> Result<Vec<Finding>, Error> {
    let mut findings = Vec::new();
    for (folder, labels) in by_crate(tree)? {
        let families: BTreeSet<&str> = labels.defined.keys().map(|label| &label[..1]).collect();
        for (label, (path, line)) in &labels.defined {
            if !labels.tested.contains_key(label) {
                let test = label.to_ascii_lowercase();
                let what =
                    format!("{label} is promised, and no test `{test}_...` in {folder} shows it");
                findings.push(Finding::at(path, *line, what));
            }
        }
        for (label, (path, line)) in &labels.tested {
            if families.contains(&label[..1]) && !labels.defined.contains_key(label) {
                let what = format!("a test of {label}, which no module doc of {folder} defines");
                findings.push(Finding::at(path, *line, what));
            }
        }
    }
    Ok(findings)
}

/// Labels in running text are seen by no rule here: each stands at the start of a line of its own.
pub(crate) fn hidden(tree: &Tree) -> Result<Vec<Finding>, Error> {
    let mut findings = Vec::new();
    for path in tree.ending(".rs").filter(|path| !is_data(path)) {
        for (number, line) in (1..).zip(tree.text(path)?.lines()) {
            let list =
                line.trim_start().strip_prefix("//!").and_then(|doc| doc.split_once("nvariants:"));
            let first = list.and_then(|(_, rest)| rest.split_whitespace().next());
            if first.is_some_and(|word| is_label(word.trim_matches(['*', ':', ',']))) {
                let what = "invariants in running text: a line `- **X1** ...` for each";
                findings.push(Finding::at(path, number, what));
            }
        }
    }
    Ok(findings)
}

/// Every label that the architecture document lists is defined by some crate.
pub(crate) fn dangling(tree: &Tree) -> Result<Vec<Finding>, Error> {
    let Some(text) = tree.text_if_any(ARCHITECTURE)? else { return Ok(Vec::new()) };
    let crates = by_crate(tree)?;
    let defined = |label: &str| crates.values().any(|labels| labels.defined.contains_key(label));
    let mut findings = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        for label in line.split("**").skip(1).step_by(2).filter(|bold| is_label(bold)) {
            if !defined(label) {
                let what = format!("{label} is defined in no module doc");
                findings.push(Finding::at(ARCHITECTURE, number, what));
            }
        }
    }
    Ok(findings)
}

fn by_crate(tree: &Tree) -> Result<BTreeMap<String, Labels>, Error> {
    let mut crates: BTreeMap<String, Labels> = BTreeMap::new();
    for path in tree.ending(".rs").filter(|path| !is_data(path)) {
        let mut parts = path.splitn(3, '/');
        let (Some("crates"), Some(name), Some(_)) = (parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        let text = tree.text(path)?;
        let labels = crates.entry(format!("crates/{name}")).or_default();
        for (line, label) in definitions(&text) {
            labels.defined.entry(label).or_insert_with(|| (path.to_owned(), line));
        }
        for (line, label) in tests(&text) {
            labels.tested.entry(label).or_insert_with(|| (path.to_owned(), line));
        }
    }
    Ok(crates)
}

/// The labels that module docs define, with their lines.
fn definitions(text: &str) -> Vec<(usize, String)> {
    let docs = (1..).zip(text.lines()).filter_map(|(number, line)| {
        let line = line.trim_start().strip_prefix("//!")?.trim_start();
        let line =
            line.strip_prefix(['-', '*']).map_or(line, |item| match item.strip_prefix(' ') {
                Some(item) => item.trim_start(),
                None => line,
            });
        let label = match line.strip_prefix("**") {
            Some(bold) => bold.split("**").next()?.trim_end_matches([':', '.']),
            None => line.split_once(':')?.0,
        };
        is_label(label).then(|| (number, label.to_owned()))
    });
    docs.collect()
}

/// The labels that test functions are named after, with their lines.
fn tests(text: &str) -> Vec<(usize, String)> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let mut found = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let line = line.strip_prefix("async ").unwrap_or(line);
        let Some(name) = line.strip_prefix("fn ") else { continue };
        let name = name.split(|next: char| !next.is_alphanumeric() && next != '_').next();
        let labels = name.unwrap_or("").split('_').map(str::to_ascii_uppercase);
        let labels: Vec<String> = labels.take_while(|label| is_label(label)).collect();
        if !labels.is_empty() && is_test(&lines[..index]) {
            found.extend(labels.into_iter().map(|label| (index + 1, label)));
        }
    }
    found
}

/// Whether the lines just above a function hold a test attribute.
fn is_test(above: &[&str]) -> bool {
    let near = above.iter().rev().take_while(|line| !line.is_empty() && !line.ends_with('}'));
    near.take(12).any(|line| line.starts_with("#[") && line.contains("test"))
}

/// A capital letter and a number without leading zeros, as in L4.
fn is_label(text: &str) -> bool {
    let mut characters = text.chars();
    let letter = characters.next().is_some_and(|first| first.is_ascii_uppercase());
    let number = characters.as_str();
    let digits =
        !number.is_empty() && number.len() <= 2 && number.chars().all(|it| it.is_ascii_digit());
    letter && digits && !number.starts_with('0') && !PRIMITIVES.contains(&text)
}

#[cfg(test)]
mod tests {
    use super::super::tree::planted;
    use super::*;

    const LIB: &str = "//! A log.\n//!\n//! - **L1**: survives.\n//! - L2: increases.\n//! **L3** atomic.\n//! See L9: no, this is prose.\n";

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let (_folder, tree) = planted(files);
        untested(&tree).unwrap().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_definition_is_a_label_at_the_start_of_a_module_doc_line() {
        let labels: Vec<String> = definitions(LIB).into_iter().map(|(_, label)| label).collect();
        assert_eq!(labels, ["L1", "L2", "L3"]);
    }

    #[test]
    fn a_label_without_a_test_in_its_crate_is_found() {
        let tests = "#[test]\nfn l1_survives() {}\n\n#[tokio::test]\nasync fn l2_increases() {}\n\nfn l3_is_no_test() {}\n";
        let elsewhere = "#[test]\nfn l3_atomic() {}\n";
        let files = [
            ("crates/log/src/lib.rs", LIB),
            ("crates/log/tests/file.rs", tests),
            ("crates/state/src/lib.rs", elsewhere),
        ];
        let found = found(&files);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("crates/log/src/lib.rs:5: L3"), "{found:?}");
    }

    #[test]
    fn a_test_of_a_label_that_is_not_defined_is_found() {
        let tests = "#[test]\nfn l1_l2_l3_all() {}\n\n#[test]\nfn l7_unknown() {}\n\n#[test]\nfn i8_rows() {}\n\n#[test]\nfn k1_of_another_crate() {}\n";
        let found = found(&[("crates/log/src/lib.rs", LIB), ("crates/log/src/tests.rs", tests)]);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].contains("a test of L7"), "{found:?}");
    }

    #[test]
    fn invariants_in_running_text_are_found() {
        let bad = "//! Sums.\n//!\n//! Invariants: M1 every sum is right. M2 it ends.\n";
        let files = [("crates/embed/src/a.rs", bad), ("crates/log/src/lib.rs", LIB)];
        let (_folder, tree) = planted(&files);
        let found = hidden(&tree).unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((&*found[0].path, found[0].line), ("crates/embed/src/a.rs", Some(3)));
    }

    #[test]
    fn a_label_in_the_architecture_without_a_definition_is_found() {
        let text = "# Architecture\n\n- **L1** survives\n- **L8** is gone, **not** L2\n";
        let (_folder, tree) = planted(&[("crates/log/src/lib.rs", LIB), (ARCHITECTURE, text)]);
        let found = dangling(&tree).unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].line, Some(4));
    }

    #[test]
    fn primitive_types_are_no_labels() {
        assert!(is_label("L4") && is_label("S12"));
        for text in ["", "L", "4", "l4", "L04", "L123", "F32", "I8", "L4a"] {
            assert!(!is_label(text), "{text}");
        }
    }
}
