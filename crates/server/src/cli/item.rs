//! One document on its way to the server: its id, its content hash and the NDJSON line.
//!
//! The id follows from the library and the place the document came from, so importing again
//! replaces instead of duplicating (U2). The line carries two custom metadata keys, [`PATH_KEY`]
//! and [`HASH_KEY`], by which the next import knows what it has to send. A line of an export has
//! neither added: it is sent as it is, each time.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// Custom metadata key with the path a document was imported from.
pub(crate) const PATH_KEY: &str = "import_path";
/// Custom metadata key with the SHA-256 of what was imported, in hexadecimal.
pub(crate) const HASH_KEY: &str = "import_sha256";

/// Where in a source a document stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The file, as the user would recognise it.
    pub(crate) path: Arc<Path>,
    /// Line of an NDJSON or CSV file, from 1.
    pub(crate) line: Option<u64>,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}", self.path.display()),
            None => write!(f, "{}", self.path.display()),
        }
    }
}

/// What makes a document's id within its file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Key {
    /// The file itself.
    File,
    /// A line, by number from 1.
    Line(u64),
    /// A row that names itself by something that is not a UUID.
    Named(String),
    /// A row that brings its UUID along.
    Given(Uuid),
}

/// One document ready to be sent.
#[derive(Debug)]
pub(crate) struct Item {
    pub(crate) id: Uuid,
    pub(crate) hash: String,
    pub(crate) place: Place,
    /// The JSON object and its newline.
    pub(crate) line: Vec<u8>,
    /// Bytes of the source this document stands for, for the progress bar.
    pub(crate) source_bytes: u64,
}

/// Turns documents of one library into items.
#[derive(Clone, Debug)]
pub(crate) struct ItemMaker {
    library: Uuid,
}

impl ItemMaker {
    /// A maker for the library with this id.
    pub(crate) fn new(library: Uuid) -> ItemMaker {
        ItemMaker { library }
    }

    /// The item of `document`, the `part`-th (from 0) of what `key` names in `place`.
    pub(crate) fn item(
        &self,
        place: Place,
        key: &Key,
        part: usize,
        mut document: Map<String, Value>,
    ) -> Item {
        let path = place.path.to_string_lossy().into_owned();
        let id = self.id(&path, key, part);
        document.remove("id");
        // A line of an export is the document as it was, and stays so.
        let exported = matches!(key, Key::Given(_)) && document.contains_key("chunks");
        if !exported {
            mark(&mut document, HASH_KEY, None);
            mark(&mut document, PATH_KEY, Some(&path));
        }
        let hash = hex(&Sha256::digest(Value::Object(document.clone()).to_string()));
        if !exported {
            mark(&mut document, HASH_KEY, Some(&hash));
        }
        document.insert("id".to_owned(), Value::String(id.to_string()));
        let mut line = Value::Object(document).to_string().into_bytes();
        line.push(b'\n');
        Item { id, hash, place, line, source_bytes: 0 }
    }

    fn id(&self, path: &str, key: &Key, part: usize) -> Uuid {
        let name = match key {
            Key::Given(id) if part == 0 => return *id,
            Key::Given(id) => format!("given:{id}"),
            Key::File => format!("file:{path}"),
            Key::Line(line) => format!("line:{line}:{path}"),
            Key::Named(name) => format!("row:{}:{name}:{path}", name.len()),
        };
        let name = if part == 0 { name } else { format!("part:{part}:{name}") };
        Uuid::new_v5(&self.library, name.as_bytes())
    }
}

/// Sets or removes one key of the custom metadata. A `metadata` that is no object stays as it is:
/// the server says what is wrong with it.
fn mark(document: &mut Map<String, Value>, key: &str, value: Option<&str>) {
    let custom = document.entry("metadata").or_insert(Value::Null);
    if custom.is_null() {
        *custom = Value::Object(Map::new());
    }
    if let Value::Object(custom) = custom {
        match value {
            Some(value) => custom.insert(key.to_owned(), Value::String(value.to_owned())),
            None => custom.remove(key),
        };
    }
}

/// Lower-case hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().map_or('0', char::from);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place() -> Place {
        Place { path: Arc::from(Path::new("/a/b.md")), line: None }
    }

    fn document(text: &str) -> Map<String, Value> {
        Map::from_iter([("text".to_owned(), Value::from(text))])
    }

    #[test]
    fn u2_the_id_follows_the_place_and_the_hash_the_content() {
        let maker = ItemMaker::new(Uuid::from_u128(7));
        let one = maker.item(place(), &Key::File, 0, document("x"));
        let same = maker.item(place(), &Key::File, 0, document("x"));
        let edited = maker.item(place(), &Key::File, 0, document("y"));
        assert_eq!((one.id, &one.hash, &one.line), (same.id, &same.hash, &same.line));
        assert_eq!(one.id, edited.id);
        assert_ne!(one.hash, edited.hash);
        let elsewhere =
            ItemMaker::new(Uuid::from_u128(8)).item(place(), &Key::File, 0, document("x"));
        assert_ne!(one.id, elsewhere.id);
    }

    #[test]
    fn every_key_and_part_has_an_id_of_its_own() {
        let maker = ItemMaker::new(Uuid::from_u128(7));
        let keys = [
            Key::File,
            Key::Line(1),
            Key::Line(2),
            Key::Named("1".into()),
            Key::Given(Uuid::from_u128(9)),
        ];
        let mut ids: Vec<Uuid> = Vec::new();
        for key in &keys {
            for part in 0..3 {
                ids.push(maker.item(place(), key, part, document("x")).id);
            }
        }
        let all = ids.len();
        ids.sort();
        ids.dedup();
        assert_eq!(ids.len(), all);
        assert!(ids.contains(&Uuid::from_u128(9)));
    }

    #[test]
    fn hexadecimal_is_lower_case() {
        assert_eq!(hex(&[0, 0x1f, 0xa0]), "001fa0");
    }
}
