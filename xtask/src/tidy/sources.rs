//! Rules about a Rust source file as a whole.

use super::tree::{Tree, is_data};
use super::{Error, Finding};

/// Above this a file is listed: does it hold one subject?
pub(crate) const LINES_SOFT_MAX: usize = 500;

/// Above this a file is refused.
const LINES_HARD_MAX: usize = 800;

/// No file has more code lines than the hard limit. Comments and blank lines are not counted: a
/// limit on them would be a limit on documentation.
pub(crate) fn too_long(tree: &Tree) -> Result<Vec<Finding>, Error> {
    let long = lengths(tree)?.into_iter().filter(|(_, lines)| *lines > LINES_HARD_MAX);
    let what = |lines| format!("{lines} code lines, at most {LINES_HARD_MAX}: split it by subject");
    Ok(long.map(|(path, lines)| Finding::of(&path, what(lines))).collect())
}

/// The files above the soft limit with their code lines, longest first.
pub(crate) fn longest(tree: &Tree) -> Result<Vec<(String, usize)>, Error> {
    let mut long = lengths(tree)?;
    long.retain(|(_, lines)| *lines > LINES_SOFT_MAX);
    long.sort_by_key(|(_, lines)| std::cmp::Reverse(*lines));
    Ok(long)
}

fn lengths(tree: &Tree) -> Result<Vec<(String, usize)>, Error> {
    let sources = tree.ending(".rs").filter(|path| !is_data(path));
    sources.map(|path| Ok((path.to_owned(), code_lines(&tree.text(path)?)))).collect()
}

/// The lines that hold something besides a comment.
fn code_lines(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut count = 0;
    for line in text.lines() {
        let line = line.trim();
        let inside = depth > 0;
        if inside || line.starts_with("/*") {
            depth += line.matches("/*").count();
            depth = depth.saturating_sub(line.matches("*/").count());
        } else if !line.is_empty() && !line.starts_with("//") {
            count += 1;
        }
    }
    count
}

/// Sources are ASCII: what looks like one character is one, and every tool shows the same.
pub(crate) fn not_ascii(tree: &Tree) -> Result<Vec<Finding>, Error> {
    let mut findings = Vec::new();
    for path in tree.ending(".rs").filter(|path| !is_data(path)) {
        for (number, line) in (1..).zip(tree.text(path)?.lines()) {
            if let Some(character) = line.chars().find(|character| !character.is_ascii()) {
                let what = format!("`{character}` is not ASCII; write {}", escaped(character));
                findings.push(Finding::at(path, number, what));
            }
        }
    }
    Ok(findings)
}

fn escaped(character: char) -> String {
    character.escape_unicode().to_string()
}

/// Vector instructions and one mapping of files are all that needs `unsafe`: the lint is lifted in
/// the kernel and in one file of the engine.
pub(crate) fn unsafe_elsewhere(tree: &Tree) -> Result<Vec<Finding>, Error> {
    let lifted = concat!("(unsafe", "_code");
    let mut findings = Vec::new();
    let mut mapping: Option<String> = None;
    for path in tree.ending(".rs") {
        let text = tree.text(path)?;
        let Some(number) = text.lines().position(|line| line.contains(lifted)) else { continue };
        let in_engine = path.starts_with("crates/engine/src/");
        if path.starts_with("crates/kernel/") {
            continue;
        }
        match &mapping {
            None if in_engine => mapping = Some(path.to_owned()),
            Some(first) if in_engine => {
                let what = format!("unsafe code in a second file of the engine, beside {first}");
                findings.push(Finding::at(path, number + 1, what));
            }
            _ => {
                let what = "unsafe code outside the kernel and the engine's mapping of files";
                findings.push(Finding::at(path, number + 1, what));
            }
        }
    }
    Ok(findings)
}

#[cfg(test)]
mod tests {
    use super::super::tree::planted;
    use super::*;

    #[test]
    fn comments_and_blank_lines_are_not_counted() {
        let text = "//! Doc.\n\nfn a() {\n    // Why.\n    b(); // Code.\n}\n/* one\ntwo */\n";
        assert_eq!(code_lines(text), 3);
    }

    #[test]
    fn a_file_above_the_hard_limit_is_refused_and_above_the_soft_one_listed() {
        let hard = "x();\n".repeat(LINES_HARD_MAX + 1);
        let soft = "x();\n".repeat(LINES_SOFT_MAX + 1);
        let fine = "// Why.\n".repeat(2000);
        let files = [("hard.rs", &*hard), ("soft.rs", &*soft), ("fine.rs", &*fine)];
        let (_folder, tree) = planted(&files);
        let found = too_long(&tree).unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].path, "hard.rs");
        let listed = longest(&tree).unwrap();
        assert_eq!(
            listed.iter().map(|(path, _)| &**path).collect::<Vec<_>>(),
            ["hard.rs", "soft.rs"]
        );
    }

    #[test]
    fn a_character_beyond_ascii_is_refused_with_its_line() {
        let files = [("a.rs", "fn a() {}\n// \u{2192}\n"), ("testdata/b.rs", "// \u{2192}\n")];
        let (_folder, tree) = planted(&files);
        let found = not_ascii(&tree).unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((&*found[0].path, found[0].line), ("a.rs", Some(2)));
        assert!(found[0].what.contains(r"\u{2192}"));
    }

    #[test]
    fn unsafe_may_stand_in_the_kernel_and_one_file_of_the_engine() {
        let lifted = concat!("#![expect(unsafe", "_code, reason = \"...\")]\n");
        let (_folder, tree) = planted(&[
            ("crates/kernel/src/lib.rs", lifted),
            ("crates/engine/src/mapped.rs", lifted),
            ("crates/engine/src/other.rs", lifted),
            ("crates/embed/src/lib.rs", lifted),
        ]);
        let found = unsafe_elsewhere(&tree).unwrap();
        let paths: Vec<&str> = found.iter().map(|finding| &*finding.path).collect();
        assert_eq!(paths, ["crates/embed/src/lib.rs", "crates/engine/src/other.rs"]);
    }
}
