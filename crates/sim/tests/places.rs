//! Every fault at every place does what `docs/FAULTS.md` says.
//!
//! The table holds everything that was ever seen of a pair, since threads interleave as they please;
//! the test fails on what it does not say. `UPDATE=1 cargo test -p arrwdb-sim golden` adds that.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use arrwdb_sim::{cells, table};

const BEGIN: &str = "<!-- made by crates/sim/tests/places.rs: begin -->\n";
const END: &str = "<!-- end -->\n";

/// What a table says of each row and column, the words as sets. A fault that never strikes is `-`.
fn parse(table: &str) -> BTreeMap<(String, usize), BTreeSet<String>> {
    let mut cells = BTreeMap::new();
    for line in table.lines().skip(2) {
        let parts: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        for (column, text) in parts[1..].iter().enumerate() {
            let words = text.split(", ").map(str::to_owned).collect();
            cells.insert((parts[0].to_owned(), column), words);
        }
    }
    cells
}

#[test]
fn golden_faults_at_places_do_what_the_table_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/FAULTS.md");
    let document = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = document.split_once(BEGIN).unwrap();
    let (said, after) = rest.split_once(END).unwrap();
    let seen = table(&cells().unwrap_or_else(|what| panic!("{what}")));
    let (known, mut unknown) = (parse(said), Vec::new());
    let mut merged = parse(&seen);
    for (cell, words) in &mut merged {
        let none = BTreeSet::new();
        let known = known.get(cell).unwrap_or(&none);
        let nothing = |word: &str| word == "-" || word == "no effect";
        let mut new = words.difference(known).filter(|word| !nothing(word)).peekable();
        let struck = words.contains("no effect") && known.contains("-");
        if new.peek().is_some() || struck || known.is_empty() {
            unknown.push(format!("{cell:?}: {words:?}, not {known:?}"));
        }
        words.extend(known.iter().cloned());
        // Whatever else was seen says more.
        for nothing in ["-", "no effect"] {
            if words.len() > 1 {
                words.remove(nothing);
            }
        }
    }
    if unknown.is_empty() {
        return;
    }
    assert!(std::env::var_os("UPDATE").is_some(), "not in docs/FAULTS.md: {unknown:#?}");
    let head = seen.lines().take(2).map(str::to_owned);
    let rows = seen.lines().skip(2).map(|line| {
        let row = line.trim_matches('|').split('|').next().unwrap().trim().to_owned();
        let cells = (0..).map_while(|column| merged.get(&(row.clone(), column)));
        let cells = cells.map(|words| words.iter().cloned().collect::<Vec<_>>().join(", "));
        let cells: Vec<String> = [row.clone()].into_iter().chain(cells).collect();
        format!("| {} |", cells.join(" | "))
    });
    let text = head.chain(rows).collect::<Vec<_>>().join("\n");
    std::fs::write(&path, format!("{before}{BEGIN}{text}\n{END}{after}")).unwrap();
}
