//! Pages of what a search finds, and how many match.

use arrwdb_engine::state::{DocumentId, Language, LibraryId, Seq};
use arrwdb_engine::{HYBRID_ROWS_MAX, Matches, Mode, Moment, PAGED_ROWS_MAX, SearchPage};
use serde::Serialize;
use serde_json::Value;
use sha2::{Digest, Sha256};
use utoipa::ToSchema;

use super::opaque;
use crate::json::{Read, Reader};
use crate::problem::Problem;

/// The cursor of a first page.
const FIRST: &str = "*";
const NO_CURSOR: &str = "must be \"*\" for a first page, or the next_cursor of a page of this search: the same body but for \
     the cursor";
const VERSION: u8 = 2;
/// Bytes of a language's code, filled up with zeros.
const LANGUAGE_BYTES: usize = 4;

/// What a body says of pages.
#[derive(Debug, Default)]
pub(super) struct Paging {
    cursor: Option<String>,
    count: bool,
}

impl Paging {
    /// Reads the value of `key`; whether it is one of these.
    pub(super) fn read(&mut self, r: &mut Reader<'_>, key: &str) -> Read<bool> {
        match key {
            "cursor" => self.cursor = r.string()?,
            "count" => self.count = r.switch()?.unwrap_or_default(),
            _other => return Ok(false),
        }
        Ok(true)
    }

    /// Whether it is to be counted how many match.
    pub(super) fn counts(&self) -> bool {
        self.count
    }

    /// The page that a body asks for, if it asks for pages.
    pub(super) fn page(
        &self,
        (library, mode): (LibraryId, Mode),
        body: &[u8],
    ) -> Result<Option<Paged>, Problem> {
        let Some(text) = &self.cursor else { return Ok(None) };
        let request = digest((library, mode), body);
        if text == FIRST {
            return Ok(Some(Paged { request, seq: None, page: SearchPage::default() }));
        }
        let paged = opaque::open(text).and_then(|bytes| Paged::read(&bytes));
        let paged = paged.filter(|paged| paged.request == request);
        paged.map(Some).ok_or_else(|| Problem::field("/cursor", NO_CURSOR))
    }
}

/// Refuses what only searches with pages have, where `key` is such; whether it is.
pub(super) fn refuse_paging(r: &mut Reader<'_>, key: &str) -> Read<bool> {
    if !matches!(key, "cursor" | "count" | "facets") {
        return Ok(false);
    }
    let value = r.any()?;
    if !value.is_null() && value != Value::Bool(false) {
        r.fault("is for search, search/keyword, search/filtered and search/embedding over HTTP");
    }
    Ok(true)
}

/// A page of a search, of one state of the library from first to last.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Paged {
    /// What is searched for.
    request: [u8; 8],
    /// The state of the pages before.
    seq: Option<Seq>,
    pub(super) page: SearchPage,
}

impl Paged {
    /// The moment of this page, where the request asks for this one.
    pub(super) fn moment(&self, at: Moment) -> Result<Moment, Problem> {
        match (at.as_of, self.seq) {
            (Some(asked), Some(seq)) if asked != seq => {
                let detail = format!("is of pages as of {seq}, but {asked} is asked for");
                Err(Problem::field("/cursor", detail))
            }
            (asked, seq) => Ok(Moment { as_of: seq.or(asked), ..at }),
        }
    }

    /// The cursor of the page behind this one, which is true at `seq`.
    pub(super) fn next(self, page: &SearchPage, seq: Seq) -> String {
        let mut bytes = vec![VERSION];
        bytes.extend(self.request);
        bytes.extend(self.seq.unwrap_or(seq).get().to_le_bytes());
        bytes.extend(u32::try_from(page.offset).unwrap_or(u32::MAX).to_le_bytes());
        let (document, index) = page.last.unwrap_or((DocumentId::from_bytes([0; 16]), 0));
        bytes.extend(document.to_bytes());
        bytes.extend(index.to_le_bytes());
        bytes.extend(language_bytes(page.language));
        bytes.extend(page.seen.iter().flat_map(|mark| mark.to_le_bytes()));
        opaque::seal(&bytes)
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (fixed, marks) = bytes.split_at_checked(41 + LANGUAGE_BYTES)?;
        let (version, rest) = fixed.split_first()?;
        let (request, rest) = rest.split_first_chunk::<8>()?;
        let (seq, rest) = rest.split_first_chunk::<8>()?;
        let (offset, rest) = rest.split_first_chunk::<4>()?;
        let (document, rest) = rest.split_first_chunk::<16>()?;
        let (index, rest) = rest.split_first_chunk::<4>()?;
        let index = u32::from_le_bytes(*index);
        let known = |language: &Language| language_bytes(*language)[..] == *rest;
        let language = Language::ALL.into_iter().find(known)?;
        let (marks, odd) = marks.as_chunks::<8>();
        let offset = usize::try_from(u32::from_le_bytes(*offset)).ok()?;
        let bounded = offset <= PAGED_ROWS_MAX && marks.len() <= HYBRID_ROWS_MAX;
        if *version != VERSION || !odd.is_empty() || !bounded {
            return None;
        }
        let last = Some((DocumentId::from_bytes(*document), index));
        let seen = marks.iter().map(|mark| u64::from_le_bytes(*mark)).collect();
        Some(Self {
            request: *request,
            seq: Some(Seq::new(u64::from_le_bytes(*seq))),
            page: SearchPage { offset, last, seen, language },
        })
    }
}

/// A language's code in so many bytes.
fn language_bytes(language: Language) -> [u8; LANGUAGE_BYTES] {
    let mut bytes = [0; LANGUAGE_BYTES];
    bytes.iter_mut().zip(language.code().bytes()).for_each(|(byte, letter)| *byte = letter);
    bytes
}

/// What a search is for: the first bytes of SHA-256 over its body without the cursor.
fn digest((library, mode): (LibraryId, Mode), body: &[u8]) -> [u8; 8] {
    let text = body.strip_prefix("\u{feff}".as_bytes()).unwrap_or(body);
    // What cannot be read, though it was, is of one search alone.
    let mut body: Value = serde_json::from_slice(text)
        .unwrap_or_else(|_unread| String::from_utf8_lossy(text).into_owned().into());
    if let Some(fields) = body.as_object_mut() {
        fields.remove("cursor");
    }
    let mut hash = Sha256::new();
    hash.update(library.to_bytes());
    hash.update(format!("{mode:?}"));
    hash.update(body.to_string());
    let whole: [u8; 32] = hash.finalize().into();
    let mut first = [0; 8];
    first.copy_from_slice(&whole[..8]);
    first
}

/// How many passages match a search, as it is answered.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TotalMatches {
    value: u64,
    /// `eq`: so many; `gte`: so many or more.
    #[schema(example = "eq")]
    relation: &'static str,
}

impl TotalMatches {
    pub(super) fn of(matches: Matches) -> Self {
        let relation = if matches.at_least { "gte" } else { "eq" };
        Self { value: matches.count, relation }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_back_and_is_of_one_search() {
        let library = LibraryId::from_bytes([1; 16]);
        let body = br#"{"query": "x", "k": 2, "cursor": "*"}"#;
        let first = Paging { cursor: Some("*".into()), count: false };
        let first = first.page((library, Mode::Vector), body).unwrap().unwrap();
        assert_eq!(first.seq, None);
        let last = Some((DocumentId::from_bytes([2; 16]), 3));
        let language = Language::None;
        let page = SearchPage { offset: 2, last, seen: vec![7, u64::MAX], language };
        let text = first.next(&page, Seq::new(9));
        let open = |text: &str, mode, body: &[u8]| {
            Paging { cursor: Some(text.into()), count: false }.page((library, mode), body)
        };
        let again = open(&text, Mode::Vector, br#"{"k":2,"query":"x"}"#).unwrap().unwrap();
        assert_eq!((&again.page, again.seq), (&page, Some(Seq::new(9))));
        // Pages stay at the state of the first one.
        let third = again.next(&page, Seq::new(10));
        let third = open(&third, Mode::Vector, body).unwrap().unwrap();
        assert_eq!(third.seq, Some(Seq::new(9)));
        let at = |as_of| Moment { as_of, ..Moment::default() };
        assert_eq!(third.moment(at(None)).unwrap(), Moment::as_of(Seq::new(9)));
        assert!(third.moment(at(Some(Seq::new(9)))).is_ok());
        assert!(third.moment(at(Some(Seq::new(8)))).is_err());
        for (mode, other) in [
            (Mode::Keyword, &body[..]),
            (Mode::Vector, br#"{"query": "x", "k": 3}"#),
            (Mode::Vector, br#"{"query": "y", "k": 2}"#),
            (Mode::Vector, br#"{"query": "x", "k": 2, "filter": {}}"#),
        ] {
            assert!(open(&text, mode, other).is_err());
        }
        for wrong in ["", "**", &text[2..], &opaque::seal(b"x"), &opaque::seal(&[2; 47])] {
            assert!(open(wrong, Mode::Vector, body).is_err(), "{wrong}");
        }
    }
}
