//! The rows that have all terms of a clause.

use super::bm25::Impact;
use super::postings::Postings;
use crate::RowSet;
use crate::inverted::{Cursor, List, OwnedList};

/// Something that a row has, or has not.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Clause {
    /// Terms of a phrase; at least one. One is a word.
    Phrase(Vec<PhraseTerm>),
    /// A word that begins so.
    Prefix(Prefix),
}

/// A term of a phrase.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct PhraseTerm {
    /// Its place in the phrase.
    pub at: u32,
    /// The term.
    pub term: Box<str>,
    /// How terms begin that count as well, where it is one of a script without spaces.
    pub begin: Option<Box<str>>,
}

/// Words that begin in a way.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Prefix {
    /// How their terms begin.
    pub begin: Box<str>,
    /// The term of the beginning as a word of its own: a stem may be shorter than its word.
    pub term: Box<str>,
}

/// The rows of a segment that have the terms of a phrase one behind the other, as their places say, with
/// how often. O(rows of the rarest term, times terms, and their positions).
pub fn phrase_list(postings: &Postings, terms: &[PhraseTerm]) -> OwnedList {
    let mut rows = Vec::new();
    each_phrase(postings, terms, |row, frequency| rows.push((row, frequency)));
    OwnedList::of(&rows, |block| Impact::bounds(block, |row| postings.length(row)))
}

/// Gives those of `rows`, which ascend, in which the second term stands right behind the first, by
/// their places in the slice, with how often. O(rows, at most those of the rarer term).
pub fn side_by_side(
    (first, second): (List<'_>, List<'_>),
    rows: &[u32],
    mut each: impl FnMut(usize, u32),
) {
    let (mut first, mut second) = (Cursor::new(first), Cursor::new(second));
    let (mut before, mut behind) = (Vec::new(), Vec::new());
    for (place, row) in rows.iter().enumerate() {
        // The rarer one says most often that the other need not be looked at.
        let rarer_first = first.list.rows() <= second.list.rows();
        let (one, other) =
            if rarer_first { (&mut first, &mut second) } else { (&mut second, &mut first) };
        if !one.seek(*row) {
            return;
        }
        if one.row() != *row || !other.seek(*row) || other.row() != *row {
            continue;
        }
        first.positions(&mut before);
        second.positions(&mut behind);
        let follows = |at: &&u32| behind.binary_search(&at.saturating_add(1)).is_ok();
        let count = before.iter().filter(follows).count();
        if count > 0 {
            each(place, u32::try_from(count).unwrap_or(u32::MAX));
        }
    }
}

/// The rows of a segment that have what the clause asks for. O(rows of its rarest term, times terms,
/// and their positions if there are several).
pub fn matching(postings: &Postings, clause: &Clause) -> RowSet {
    let mut rows = RowSet::empty(postings.rows());
    match clause {
        Clause::Prefix(prefix) => {
            let list = postings.prefix_list(prefix);
            list.list().for_each(|row, _frequency| rows.insert(row..row.saturating_add(1)));
        }
        Clause::Phrase(terms) => {
            each_phrase(postings, terms, |row, _frequency| rows.insert(row..row.saturating_add(1)));
        }
    }
    rows
}

fn each_phrase(postings: &Postings, terms: &[PhraseTerm], each: impl FnMut(u32, u32)) {
    let made: Vec<Option<OwnedList>> = terms
        .iter()
        .map(|term| {
            let prefix = Prefix { begin: term.begin.clone()?, term: term.term.clone() };
            Some(postings.prefix_positions(&prefix))
        })
        .collect();
    let lists: Option<Vec<(List<'_>, u32)>> = (terms.iter().zip(&made))
        .map(|(term, made)| match made {
            Some(made) => Some((made.list(), term.at)),
            None => Some((postings.list(&term.term)?, term.at)),
        })
        .collect();
    match lists.as_deref() {
        None | Some([]) => {}
        Some([(list, _at)]) => list.for_each(each),
        Some(lists) => phrase(lists, each),
    }
}

/// Gives the rows that have all terms, one behind the other as their places are, with how often.
fn phrase(lists: &[(List<'_>, u32)], mut each: impl FnMut(u32, u32)) {
    let mut cursors: Vec<(Cursor<'_>, u32)> =
        lists.iter().map(|(list, at)| (Cursor::new(*list), *at)).collect();
    // The rarest leads.
    cursors.sort_by_key(|(cursor, _at)| cursor.list.rows());
    let Some(((lead, lead_at), others)) = cursors.split_first_mut() else { return };
    let (mut starts, mut positions) = (Vec::new(), Vec::new());
    let mut row = 0;
    'rows: while lead.seek(row) {
        row = lead.row();
        for (cursor, _at) in others.iter_mut() {
            if !cursor.seek(row) {
                return;
            }
            if cursor.row() > row {
                row = cursor.row();
                continue 'rows;
            }
        }
        lead.positions(&mut starts);
        starts.retain_mut(|position| {
            let start = position.checked_sub(*lead_at);
            *position = start.unwrap_or(0);
            start.is_some()
        });
        for (cursor, at) in others.iter_mut() {
            if starts.is_empty() {
                break;
            }
            cursor.positions(&mut positions);
            starts.retain(|start| positions.binary_search(&start.saturating_add(*at)).is_ok());
        }
        if !starts.is_empty() {
            each(row, u32::try_from(starts.len()).unwrap_or(u32::MAX));
        }
        let Some(next) = row.checked_add(1) else { return };
        row = next;
    }
}
