//! Links in Markdown documents lead somewhere: to a file of the tree and, with a `#`, to one of its
//! headings. Links to other sites are not followed; rustdoc looks after those in doc comments.

use std::collections::{BTreeMap, BTreeSet};

use super::tree::Tree;
use super::{Error, Finding};

/// Every relative link of every document resolves.
pub(crate) fn broken(tree: &Tree) -> Result<Vec<Finding>, Error> {
    let mut findings = Vec::new();
    let mut anchors: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for path in tree.ending(".md") {
        anchors.insert(path.to_owned(), headings(&tree.text(path)?));
    }
    for path in tree.ending(".md") {
        for (line, target) in links(&tree.text(path)?) {
            let what = problem(tree, &anchors, path, &target);
            findings.extend(what.map(|what| Finding::at(path, line, what)));
        }
    }
    Ok(findings)
}

/// Every document that a comment of the sources names by its path is there.
pub(crate) fn unwritten(tree: &Tree) -> Result<Vec<Finding>, Error> {
    let mut findings = Vec::new();
    for path in tree.ending(".rs") {
        let text = tree.text(path)?;
        let comments =
            (1..).zip(text.lines()).filter(|(_, line)| line.trim_start().starts_with("//"));
        for (number, line) in comments {
            // Every second piece stands between backticks.
            let named = line.split('`').skip(1).step_by(2).filter(|code| code.starts_with("docs/"));
            for document in named.filter(|document| !tree.contains(document)) {
                findings.push(Finding::at(path, number, format!("there is no {document}")));
            }
        }
    }
    Ok(findings)
}

/// What is wrong with a link, if anything.
fn problem(
    tree: &Tree,
    anchors: &BTreeMap<String, BTreeSet<String>>,
    from: &str,
    target: &str,
) -> Option<String> {
    let elsewhere = target.contains("://") || target.starts_with("mailto:");
    if elsewhere {
        return None;
    }
    let (file, anchor) = match target.split_once('#') {
        Some((file, anchor)) => (file, Some(anchor)),
        None => (target, None),
    };
    let Some(path) = resolve(from, file) else {
        return Some(format!("`{target}` leads out of the project"));
    };
    if !tree.contains(&path) {
        return Some(format!("`{target}`: there is no {path}"));
    }
    let known = anchors.get(&path)?;
    let anchor = anchor?;
    let missing = !known.contains(&anchor.to_lowercase());
    missing.then(|| format!("`{target}`: {path} has no heading `#{anchor}`"))
}

/// The path that a link means, relative to the root; `None` above the root.
fn resolve(from: &str, file: &str) -> Option<String> {
    if file.is_empty() {
        return Some(from.to_owned());
    }
    let mut parts: Vec<&str> = match file.strip_prefix('/') {
        Some(_) => Vec::new(),
        None => from.split('/').collect(),
    };
    // The document's own name; nothing where the link starts at the root.
    parts.pop();
    for part in file.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            name => parts.push(name),
        }
    }
    Some(parts.join("/"))
}

/// The lines of a document outside fenced code, numbered from 1, without code spans.
fn prose(text: &str) -> Vec<(usize, String)> {
    let mut fence: Option<&str> = None;
    let mut lines = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let marker =
            ["```", "~~~"].into_iter().find(|marker| line.trim_start().starts_with(marker));
        match (fence, marker) {
            (None, Some(_)) => fence = marker,
            (Some(open), Some(close)) if open == close => fence = None,
            (Some(_), _) => {}
            (None, None) => lines.push((number, without_code(line))),
        }
    }
    lines
}

/// The line with the inside of its code spans blanked.
fn without_code(line: &str) -> String {
    let pieces: Vec<&str> = line.split('`').collect();
    if pieces.len().is_multiple_of(2) {
        return line.to_owned();
    }
    pieces.into_iter().step_by(2).collect::<Vec<_>>().join("``")
}

/// The targets of a document's links with their lines: `[text](target)`, `![alt](target)` and
/// `[name]: target`.
fn links(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (number, line) in prose(text) {
        for (start, _) in line.match_indices("](") {
            let rest = &line[start + 2..];
            let end = closing(rest).unwrap_or(rest.len());
            found.push((number, target_of(&rest[..end])));
        }
        let named = line.trim_start().strip_prefix('[').and_then(|rest| rest.split_once("]: "));
        if let Some((_, target)) = named {
            found.push((number, target_of(target)));
        }
    }
    found
}

/// Where the bracket that was opened before the text is closed.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    for (index, character) in text.char_indices() {
        match character {
            '(' => depth += 1,
            ')' if depth == 0 => return Some(index),
            ')' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// The target alone, without angle brackets and without a title.
fn target_of(text: &str) -> String {
    let text = text.trim();
    let target = match text.strip_prefix('<') {
        Some(rest) => rest.split('>').next().unwrap_or(rest),
        None => text.split_whitespace().next().unwrap_or(""),
    };
    target.to_owned()
}

/// The anchors of a document: its headings as GitHub and most renderers spell them, and the ids that
/// it sets itself.
fn headings(text: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for (number, line) in prose(text) {
        for mark in ["id=\"", "name=\""] {
            let set = line.split(mark).skip(1).filter_map(|rest| rest.split('"').next());
            anchors.extend(set.map(str::to_lowercase));
        }
        let hashes = line.chars().take_while(|character| *character == '#').count();
        if (1..=6).contains(&hashes) && line[hashes..].starts_with(' ') {
            // The heading as written: code in it counts, which `prose` has blanked.
            let written = text.lines().nth(number - 1).unwrap_or("");
            let slug = slug(&written[hashes..]);
            let count = seen.entry(slug.clone()).or_default();
            anchors.insert(if *count == 0 { slug } else { format!("{slug}-{count}") });
            *count += 1;
        }
    }
    anchors
}

fn slug(heading: &str) -> String {
    let mut text = String::new();
    let mut rest = heading.trim();
    // A link in a heading counts by its text.
    while let Some((before, after)) = rest.split_once("](") {
        text.push_str(before);
        rest = after.split_once(')').map_or("", |(_, after)| after);
    }
    text.push_str(rest);
    let kept = text.chars().filter(|it| it.is_alphanumeric() || [' ', '-', '_'].contains(it));
    kept.map(|it| if it == ' ' { '-' } else { it }).collect::<String>().to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::super::tree::planted;
    use super::*;

    fn found(text: &str) -> Vec<String> {
        let files = [
            ("docs/a.md", text),
            ("docs/b.md", "# The log\n\n## `Log::append` and L4\n\n## Twice\n\n## Twice\n"),
            ("crates/log/src/lib.rs", ""),
        ];
        let (_folder, tree) = planted(&files);
        broken(&tree).unwrap().into_iter().map(|finding| finding.what).collect()
    }

    #[test]
    fn links_that_lead_somewhere_pass() {
        let text = "# Here\n[a](b.md) [b](b.md#the-log) [c](../crates/log/src/lib.rs) [d](#here)\n\
                    [e](b.md#logappend-and-l4) [f](b.md#twice-1) [g](https://x.y/z) ![h](../crates/log)\n\
                    [i](/docs/b.md) [j](<b.md> \"title\") [k][ref]\n\n[ref]: b.md#twice\n";
        assert_eq!(found(text), Vec::<String>::new());
    }

    #[test]
    fn a_link_to_no_file_is_found() {
        assert_eq!(found("[a](c.md)\n"), ["`c.md`: there is no docs/c.md"]);
        assert_eq!(found("[r]: ../crates/log/src/file.rs\n").len(), 1);
        assert_eq!(
            found("[a](../../etc/passwd)\n"),
            ["`../../etc/passwd` leads out of the project"]
        );
    }

    #[test]
    fn a_link_to_no_heading_is_found() {
        assert_eq!(
            found("[a](b.md#thrice)\n"),
            ["`b.md#thrice`: docs/b.md has no heading `#thrice`"]
        );
        assert_eq!(found("[a](#nowhere)\n").len(), 1);
    }

    #[test]
    fn a_document_that_a_comment_names_and_nobody_wrote_is_found() {
        let text = "//! See `docs/a.md` and\n//! `docs/b.md`, or `a`.\nfn a() {}\n";
        let (_folder, tree) = planted(&[("docs/a.md", ""), ("src/lib.rs", text)]);
        let found = unwritten(&tree).unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((found[0].line, &*found[0].what), (Some(2), "there is no docs/b.md"));
    }

    #[test]
    fn code_holds_no_links() {
        assert_eq!(found("```\n[a](c.md)\n```\n`[a](c.md)` and `x`\n"), Vec::<String>::new());
    }
}
