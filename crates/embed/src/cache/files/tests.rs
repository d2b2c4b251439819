use proptest::prelude::*;

use super::*;

fn key(number: u16) -> CacheKey {
    let mut key = [7; 32];
    key[..2].copy_from_slice(&number.to_le_bytes());
    CacheKey(key)
}

fn vector(number: u16) -> Vec<f32> {
    (0..16_u8).map(|value| f32::from(number) + f32::from(value) / 16.0).collect()
}

/// Bytes of one entry of the tests.
const ENTRY: u64 = 40 + 64 + 4;

fn open(dir: &Path, bytes_max: u64) -> Files {
    let files = Files::new(dir, bytes_max);
    files.load().expect("loaded");
    files
}

fn known(files: &Files, numbers: std::ops::Range<u16>) -> Vec<u16> {
    numbers
        .filter(|&number| match files.get(&key(number), 16) {
            Some(found) => {
                assert_eq!(found.vector, vector(number), "a hit is the right vector");
                true
            }
            None => false,
        })
        .collect()
}

#[test]
fn what_is_written_is_found_again_after_a_restart() {
    let dir = tempfile::tempdir().expect("directory");
    let files = open(dir.path(), 1 << 20);
    for number in 0..10 {
        files.append(&key(number), &vector(number)).expect("written");
    }
    assert_eq!(known(&files, 0..12), (0..10).collect::<Vec<_>>());
    let again = open(dir.path(), 1 << 20);
    assert_eq!(again.bytes(), files.bytes());
    assert_eq!(known(&again, 0..12), (0..10).collect::<Vec<_>>());
    assert!(again.get(&key(0), 15).is_none(), "another dimension is another vector");
}

#[test]
fn both_files_stay_within_the_bound_and_the_newest_are_kept() {
    let dir = tempfile::tempdir().expect("directory");
    let bytes_max = 2 * (8 + 10 * ENTRY);
    let files = open(dir.path(), bytes_max);
    for number in 0..100 {
        files.append(&key(number), &vector(number)).expect("written");
        let lengths = [YOUNG, OLD]
            .map(|name| std::fs::metadata(dir.path().join(name)).map_or(0, |file| file.len()));
        assert!(lengths.iter().sum::<u64>() <= bytes_max);
        assert_eq!(files.bytes(), lengths.iter().sum::<u64>());
        assert!(files.has(&key(number)));
    }
    assert_eq!(known(&files, 0..100), (80..100).collect::<Vec<_>>());
    assert!(files.get(&key(85), 16).expect("a hit").is_old);
    assert!(!files.get(&key(95), 16).expect("a hit").is_old);
    assert_eq!(known(&open(dir.path(), bytes_max), 0..100), (80..100).collect::<Vec<_>>());
}

#[test]
fn an_entry_is_stored_once() {
    let dir = tempfile::tempdir().expect("directory");
    let files = open(dir.path(), 1 << 20);
    files.append(&key(1), &vector(1)).expect("written");
    let bytes = files.bytes();
    files.append(&key(1), &vector(1)).expect("written");
    assert_eq!(files.bytes(), bytes);
}

#[test]
fn any_damaged_byte_is_a_miss_and_nothing_else() {
    let dir = tempfile::tempdir().expect("directory");
    let files = open(dir.path(), 1 << 20);
    for number in 0..3 {
        files.append(&key(number), &vector(number)).expect("written");
    }
    drop(files);
    let path = dir.path().join(YOUNG);
    let whole = std::fs::read(&path).expect("read");
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x41;
        std::fs::write(&path, &damaged).expect("written");
        let files = open(dir.path(), 1 << 20);
        // `known` checks that a hit is right; the damaged entry is never one.
        let hit = known(&files, 0..3);
        assert!(hit.len() < 3, "byte {at}");
        // What was lost can be stored again.
        for number in 0..3 {
            files.append(&key(number), &vector(number)).expect("written");
        }
        assert_eq!(known(&files, 0..3), [0, 1, 2], "byte {at}");
        assert_eq!(known(&open(dir.path(), 1 << 20), 0..3), [0, 1, 2], "byte {at}");
    }
}

#[test]
fn a_torn_file_keeps_its_whole_entries() {
    let dir = tempfile::tempdir().expect("directory");
    let files = open(dir.path(), 1 << 20);
    for number in 0..3 {
        files.append(&key(number), &vector(number)).expect("written");
    }
    drop(files);
    let path = dir.path().join(YOUNG);
    let whole = std::fs::read(&path).expect("read");
    for length in 0..whole.len() {
        std::fs::write(&path, &whole[..length]).expect("written");
        let files = open(dir.path(), 1 << 20);
        let entries = length.saturating_sub(8) / usize::try_from(ENTRY).expect("small");
        assert_eq!(known(&files, 0..3).len(), entries, "{length} bytes");
    }
}

#[test]
fn a_file_larger_than_allowed_is_begun_anew() {
    let dir = tempfile::tempdir().expect("directory");
    let files = open(dir.path(), 1 << 20);
    for number in 0..100 {
        files.append(&key(number), &vector(number)).expect("written");
    }
    let files = open(dir.path(), 2 * (8 + 10 * ENTRY));
    assert_eq!(known(&files, 0..100), [0_u16; 0]);
    assert_eq!(files.bytes(), 16);
}

#[test]
fn files_that_are_not_ours_are_begun_anew() {
    let dir = tempfile::tempdir().expect("directory");
    std::fs::write(dir.path().join(YOUNG), b"a letter to my aunt").expect("written");
    let files = open(dir.path(), 1 << 20);
    files.append(&key(1), &vector(1)).expect("written");
    assert_eq!(known(&open(dir.path(), 1 << 20), 0..3), [1]);
}

#[test]
fn entries_are_bounded_in_number_too() {
    let dir = tempfile::tempdir().expect("directory");
    let open = || {
        let files = Files { entries_max: 10, ..Files::new(dir.path(), 1 << 20) };
        files.load().expect("loaded");
        files
    };
    let files = open();
    for number in 0..35 {
        files.append(&key(number), &vector(number)).expect("written");
    }
    assert_eq!(known(&files, 0..35), (20..35).collect::<Vec<_>>());
    assert_eq!(known(&open(), 0..35), (20..35).collect::<Vec<_>>());
    // A file from a time of larger bounds is read as far as it may be.
    let larger = self::open(dir.path(), 1 << 20);
    for number in 35..55 {
        larger.append(&key(number), &vector(number)).expect("written");
    }
    assert_eq!(known(&open(), 20..55), (20..40).collect::<Vec<_>>());
}

/// A file of entries, with some of its bytes changed and some more behind it.
fn altered(count: u16, changes: &[(prop::sample::Index, u8)], noise: &[u8]) -> Vec<u8> {
    let entries = (0..count).flat_map(|number| encode(&key(number), &vector(number)));
    let mut bytes: Vec<u8> = MAGIC.iter().copied().chain(entries).collect();
    for (at, byte) in changes {
        let at = at.index(bytes.len());
        bytes[at] = *byte;
    }
    bytes.extend_from_slice(noise);
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_bytes_are_a_cache_of_right_vectors_or_of_none(
        count in 0_u16..6,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        noise in prop::collection::vec(any::<u8>(), 0..80),
    ) {
        let bytes = altered(count, &changes, &noise);
        let found = super::super::check_file(&mut bytes.as_slice()).expect("memory can be read");
        if changes.is_empty() {
            prop_assert_eq!(found.entries, u64::from(count));
            prop_assert_eq!(found.damaged_at.is_none(), noise.is_empty());
        }
        let dir = tempfile::tempdir().expect("directory");
        std::fs::write(dir.path().join(YOUNG), &bytes).expect("written");
        let files = open(dir.path(), 1 << 20);
        // `known` sees to it that a hit is the right vector.
        let hits = known(&files, 0..6).len() as u64;
        prop_assert!(hits <= found.entries, "a check finds what can be found: {hits}");
        for number in 0..6 {
            files.append(&key(number), &vector(number)).expect("written");
        }
        prop_assert_eq!(known(&files, 0..6), (0..6).collect::<Vec<_>>(), "and it heals");
    }

    #[test]
    fn random_bytes_are_no_cache(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let found = super::super::check_file(&mut bytes.as_slice()).expect("memory can be read");
        prop_assert_eq!(found.entries, 0);
        prop_assert!(found.damaged_at.is_some());
    }
}
