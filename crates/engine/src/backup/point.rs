//! Restore points and the names of objects, format 1. The tables are in `docs/format/backup.md`.
//!
//! A restore point is JSON, so that whoever finds a backup years later can read what it needs. It
//! carries its own SHA-256 over the exact bytes of the value of `point`.

use arrwdb_state::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use super::error::BackupError;
use super::target::is_key;

/// The one format there is.
const FORMAT: u32 = 1;
/// Digits of a SHA-256 in the key of a part of the log: 128 bits, so that restoring needs no more
/// than the names to follow the log.
pub(super) const LOG_HASH_DIGITS: usize = 32;

/// A file of the backup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Object {
    /// Its key in the target.
    pub key: String,
    /// Its size.
    pub bytes: u64,
    /// Its SHA-256, in lower-case hexadecimal.
    pub sha256: String,
}

/// A data directory at one sequence number, as a list of objects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Point {
    /// Every record up to this number is in it.
    pub seq: u64,
    /// The history that the records belong to: 16 hexadecimal digits.
    pub history: String,
    /// When it was taken: microseconds since 1970 in UTC.
    pub time: i64,
    /// When the first restore point of the same number was taken: nothing was written since.
    pub since: i64,
    /// The release that made it.
    pub arrwdb: String,
    /// The data directory's file `VERSION`.
    pub version: String,
    /// Records up to this number are in the catalog's snapshot and the manifests.
    pub covered: u64,
    /// The earliest number that can be restored from these manifests.
    pub floor: u64,
    /// The newest record, by which the next backup knows whether the log goes on from here.
    pub last_record: Option<LastRecord>,
    /// Libraries that exist at `seq`.
    pub library_count: u64,
    /// The catalog's snapshot, if there is one yet.
    pub catalog: Option<Object>,
    /// The libraries of the snapshot that have a manifest.
    pub libraries: Vec<LibraryPart>,
    /// Records, oldest first, each part following the one before it: all after `covered`, and all
    /// that are new since the restore point before.
    pub log: Vec<LogPart>,
}

/// A record, told apart from every other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastRecord {
    /// Its number.
    pub seq: u64,
    /// SHA-256 of its stream and payload.
    pub sha256: String,
}

/// A library's manifest and the files that it names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LibraryPart {
    /// The library.
    pub id: String,
    /// The last record that the manifest has.
    pub applied: u64,
    /// Live documents at `applied`.
    pub documents: u64,
    /// Live chunks at `applied`.
    pub chunks: u64,
    /// The digest at `applied`: 32 hexadecimal digits.
    pub digest: String,
    /// The manifest.
    pub manifest: Object,
    /// The segments, oldest rows first.
    pub segments: Vec<SegmentPart>,
}

/// A segment file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentPart {
    /// Its number within the library.
    pub number: u64,
    /// The file.
    #[serde(flatten)]
    pub object: Object,
}

/// Records with numbers above `after`, up to `last`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPart {
    /// The number of the record before the first one here.
    pub after: u64,
    /// The first record's number.
    pub first: u64,
    /// The last record's number.
    pub last: u64,
    /// The file.
    #[serde(flatten)]
    pub object: Object,
}

#[derive(Deserialize)]
struct Envelope<'a> {
    format: u32,
    sha256: String,
    #[serde(borrow)]
    point: &'a RawValue,
}

impl Point {
    /// The name it has in the target.
    pub(super) fn name(&self) -> PointName {
        PointName { time: self.time, seq: self.seq, history: self.history.clone() }
    }

    /// When it was taken.
    pub fn taken(&self) -> Timestamp {
        Timestamp::from_micros(self.time)
    }

    /// Every object it needs.
    pub fn objects(&self) -> impl Iterator<Item = &Object> {
        let libraries = self.libraries.iter().flat_map(|library| {
            [&library.manifest].into_iter().chain(library.segments.iter().map(|it| &it.object))
        });
        self.catalog.iter().chain(libraries).chain(self.log.iter().map(|part| &part.object))
    }

    /// Bytes of every object it needs.
    pub fn bytes(&self) -> u64 {
        self.objects().map(|object| object.bytes).sum()
    }

    pub(super) fn write(&self) -> Vec<u8> {
        // No map of it has keys that are not text, and no number is not finite.
        let point = serde_json::to_string(self).unwrap_or_default();
        assert!(!point.is_empty(), "a restore point can be written");
        let sha256 = sha256(point.as_bytes());
        format!("{{\"format\":{FORMAT},\"sha256\":\"{sha256}\",\"point\":{point}}}\n").into_bytes()
    }

    /// Reads what [`Point::write`] wrote; `key` is what errors call it.
    pub(super) fn read(key: &str, bytes: &[u8]) -> Result<Self, BackupError> {
        let damaged = || BackupError::Damaged {
            detail: format!(
                "{key} is damaged; delete it to restore from the restore point before it, or back \
                 up again"
            ),
        };
        let envelope: Envelope<'_> = serde_json::from_slice(bytes).map_err(|_error| damaged())?;
        if envelope.format > FORMAT {
            return Err(BackupError::Newer { what: key.to_owned() });
        }
        if envelope.sha256 != sha256(envelope.point.get().as_bytes()) {
            return Err(damaged());
        }
        let point: Self = serde_json::from_str(envelope.point.get()).map_err(|_error| damaged())?;
        let named = PointName::parse(key).is_some_and(|name| name == point.name());
        if named && point.objects().all(|object| is_key(&object.key)) {
            Ok(point)
        } else {
            Err(damaged())
        }
    }
}

/// What a restore point's key says of it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PointName {
    pub(super) time: i64,
    pub(super) seq: u64,
    pub(super) history: String,
}

impl PointName {
    pub(super) fn key(&self) -> String {
        format!("points/{:020}-{:020}-{}.json", self.time, self.seq, self.history)
    }

    pub(super) fn parse(key: &str) -> Option<Self> {
        let mut parts = key.strip_prefix("points/")?.strip_suffix(".json")?.split('-');
        let name = Self {
            time: parts.next()?.parse().ok()?,
            seq: parts.next()?.parse().ok()?,
            history: parts.next()?.to_owned(),
        };
        (name.key() == key).then_some(name)
    }
}

/// What the key of a part of the log says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LogName {
    pub(super) history: String,
    pub(super) after: u64,
    pub(super) first: u64,
    pub(super) last: u64,
    /// The beginning of its SHA-256: [`LOG_HASH_DIGITS`] hexadecimal digits.
    pub(super) hash: String,
}

impl LogName {
    pub(super) fn key(&self) -> String {
        let Self { history, after, first, last, hash } = self;
        format!("log/{history}/{after:020}-{first:020}-{last:020}-{hash}.log")
    }

    pub(super) fn parse(key: &str) -> Option<Self> {
        let (history, name) = key.strip_prefix("log/")?.split_once('/')?;
        let mut parts = name.strip_suffix(".log")?.split('-');
        let name = Self {
            history: history.to_owned(),
            after: parts.next()?.parse().ok()?,
            first: parts.next()?.parse().ok()?,
            last: parts.next()?.parse().ok()?,
            hash: parts.next()?.to_owned(),
        };
        (name.key() == key).then_some(name)
    }
}

/// Lower-case hexadecimal.
pub(super) fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(nibble.into(), 16).unwrap_or('0');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

/// SHA-256 in lower-case hexadecimal.
pub(super) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point() -> Point {
        let object = |key: &str| Object { key: key.into(), bytes: 3, sha256: sha256(b"abc") };
        Point {
            seq: 120,
            history: "00112233445566aa".into(),
            time: 1_700_000_000_000_000,
            since: 1_700_000_000_000_000,
            arrwdb: "0.1.0".into(),
            version: "arrwdb data directory, format 1\n".into(),
            covered: 100,
            floor: 110,
            last_record: Some(LastRecord { seq: 119, sha256: sha256(b"r") }),
            library_count: 1,
            catalog: Some(object("catalog/1-ab")),
            libraries: vec![LibraryPart {
                id: "01890000-0000-7000-8000-000000000000".into(),
                applied: 110,
                documents: 5,
                chunks: 9,
                digest: format!("{:032x}", 77),
                manifest: object("libraries/a/manifest-110-ab"),
                segments: vec![SegmentPart { number: 1, object: object("libraries/a/1-x.seg") }],
            }],
            log: vec![LogPart { after: 90, first: 91, last: 119, object: object("log/h/1.log") }],
        }
    }

    #[test]
    fn a_restore_point_is_read_as_it_was_written_and_damage_is_found() {
        let point = point();
        let key = point.name().key();
        let bytes = point.write();
        assert_eq!(Point::read(&key, &bytes).unwrap(), point);
        for place in 0..bytes.len() - 1 {
            let mut damaged = bytes.clone();
            damaged[place] ^= 1;
            let read = Point::read(&key, &damaged);
            assert!(read.is_err() || read.is_ok_and(|read| read == point), "byte {place}");
        }
        assert!(Point::read("points/1-2-ab.json", &bytes).is_err(), "another's name");
        let newer = String::from_utf8(bytes).unwrap().replace("\"format\":1", "\"format\":2");
        assert!(matches!(Point::read(&key, newer.as_bytes()), Err(BackupError::Newer { .. })));
    }

    #[test]
    fn an_object_outside_of_the_target_is_refused() {
        let mut point = point();
        point.libraries[0].manifest.key = "../../etc/passwd".into();
        assert!(Point::read(&point.name().key(), &point.write()).is_err());
    }

    #[test]
    fn golden_restore_point_format_1() {
        let written = String::from_utf8(point().write()).unwrap();
        assert_eq!(written, include_str!("../../tests/golden/point-1.json"));
    }
}
